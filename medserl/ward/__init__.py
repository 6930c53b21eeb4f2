"""The synthetic ward: a small world in which the game can be played and judged on two CPU cores.

``table`` reads the knowledge table, ``cases`` holds notes as facts with phrasings, ``generator`` makes notes
from seeds, ``facts`` and ``oracle`` say what an edit did to one, ``tokenizer`` and ``untrained`` make the start
of the tiny model that ships in ``model/``. Importing the package registers the referee ``oracle`` and the note source
``ward``.
"""

from pathlib import Path

from medserl.ward.generator import SPLITS, ward_notes
from medserl.ward.medec import medec_rows
from medserl.ward.oracle import OracleReferee
from medserl.ward.source import WardNotes

MODEL_DIR = Path(__file__).parent / "model"
"""The shipped model: a directory that ``from_pretrained`` and vLLM read."""


def model_dir() -> Path:
    """Directory of the shipped model."""
    return MODEL_DIR


__all__ = ["MODEL_DIR", "SPLITS", "OracleReferee", "WardNotes", "medec_rows", "model_dir", "ward_notes"]
