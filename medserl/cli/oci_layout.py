"""An image that Docker saved, as an OCI layout of uncompressed layers.

Given Docker's own archive, Apptainer (1.4.5) compresses every layer, for its digest and to keep it, only to unpack it
again: a SIF of a base of 0.3 GB cost 19 s of processor time so, and 4 s from a layout. The layers of the layout are
the archive's, byte for byte, under the digests that the image's configuration has for them, which Apptainer checks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from medserl.errors import UserError
from medserl.files import read_json
from medserl.words import counted

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class SaveError(UserError):
    """An image that Docker does not hand out, or an archive that is not one of Docker's."""


def from_command(command: Sequence[str], folder: Path) -> None:
    """Make ``folder`` the layout of the image that ``command`` (``docker save NAME``) writes to its output.

    Raises:
        SaveError: the command failed, or what it wrote is not one saved image.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            from_stream(process.stdout, folder)
        except (tarfile.TarError, SaveError):
            if process.wait() == 0:
                raise
    if process.returncode:
        raise SaveError(f"`{' '.join(command)}` ended with exit code {process.returncode}; the reason is above")


def from_stream(stream: IO[bytes], folder: Path) -> None:
    """Make ``folder`` the layout of the saved image (``docker save``, any version) that ``stream`` holds.

    Raises:
        SaveError: it holds no image of Docker's, or several.
        tarfile.TarError: it is no archive at all.
    """
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        archive.extractall(folder, filter="data")
    config_file, named, digests = _parts(folder)
    config = config_file.read_bytes()
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    layers = []
    for source, digest in zip(named, digests, strict=True):
        target = blobs / digest.removeprefix("sha256:")
        if source != target and source.is_file():  # a layer that comes twice is a link, or moved already
            os.replace(source, target)
        if not target.is_file():
            raise SaveError(f"the archive lacks the layer {digest}; save the image again")
        layers.append(_descriptor(LAYER_TYPE, digest, target.stat().st_size))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": _blob(blobs, CONFIG_TYPE, config)}
    listed = _blob(blobs, MANIFEST_TYPE, json.dumps({**manifest, "layers": layers}).encode())
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def _parts(folder: Path) -> tuple[Path, list[Path], list[str]]:
    """Of the one image of an archive: its configuration, its layers, and what the configuration calls them."""
    folder = folder.resolve()
    file = folder / "manifest.json"
    try:
        images = read_json(file) if file.is_file() else []
        if isinstance(images, list) and len(images) != 1:
            raise SaveError(
                f"the archive holds {counted(len(images), 'image')} of Docker's; save one image by its name"
            )
        file = config = _inside(folder, images[0]["Config"])
        layers = [_inside(folder, name) for name in images[0]["Layers"]]
        digests = read_json(config)["rootfs"]["diff_ids"]
        if len(digests) != len(layers) or not all(_DIGEST.fullmatch(digest) for digest in digests):
            raise ValueError("its layers and its diff_ids do not go together")
    except SaveError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = getattr(error, "strerror", None) or (error if isinstance(error, ValueError) else "it is incomplete")
        raise SaveError(
            f"the archive's {file.relative_to(folder)} is damaged, or not one of Docker's ({why}); save the image again"
        ) from None
    return config, layers, digests


def _inside(folder: Path, name: str) -> Path:
    """A path below the folder, whatever an archive says."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise ValueError("it names a file outside of the archive")
    return path


def _blob(blobs: Path, kind: str, content: bytes) -> dict[str, Any]:
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    return _descriptor(kind, f"sha256:{name}", len(content))


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}
