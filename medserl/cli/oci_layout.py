"""An image that Docker saved, as an OCI layout of uncompressed layers.

Given Docker's own archive, Apptainer (1.4.5) compresses every layer, for its digest and to keep it, only to unpack it
again: a SIF of a base of 0.3 GB cost 19 s of processor time so, and 4 s from a layout. The layers of the layout are
the archive's, byte for byte, under the digests that the image's configuration has for them, which Apptainer checks.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from medserl.errors import UserError
from medserl.files import read_json

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


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
    manifest_file = folder / "manifest.json"
    images: list[dict[str, Any]] = read_json(manifest_file) if manifest_file.is_file() else []
    if len(images) != 1:
        raise SaveError(
            f"the archive holds {len(images)} images of Docker's instead of one; save one image by its name"
        )
    image = images[0]
    config = (folder / image["Config"]).read_bytes()
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    layers = []
    for name, digest in zip(image["Layers"], json.loads(config)["rootfs"]["diff_ids"], strict=True):
        source, target = (folder / name).resolve(), blobs / digest.removeprefix("sha256:")
        if source != target and source.is_file():  # a layer that comes twice is a link, or moved already
            os.replace(source, target)
        layers.append(_descriptor(LAYER_TYPE, digest, target.stat().st_size))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": _blob(blobs, CONFIG_TYPE, config)}
    listed = _blob(blobs, MANIFEST_TYPE, json.dumps({**manifest, "layers": layers}).encode())
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))


def _blob(blobs: Path, kind: str, content: bytes) -> dict[str, Any]:
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    return _descriptor(kind, f"sha256:{name}", len(content))


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest, "size": size}
