"""A saved Docker image as an OCI layout: same layers, digests that hold."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from medserl.cli.oci_layout import SaveError, from_command, from_stream

LAYERS = [b"first layer" * 100, b"second layer" * 100]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def saved(names: list[str], links: dict[str, str] | None = None) -> bytes:
    """What ``docker save`` writes, with the layers under these names."""
    contents = dict(zip(names, LAYERS, strict=False))
    order = [*names, *(links or {})]
    by_name = {**contents, **{name: contents[target.removeprefix("../")] for name, target in (links or {}).items()}}
    ids = [f"sha256:{digest(by_name[name])}" for name in order]
    config = json.dumps({"config": {"User": "1:1"}, "rootfs": {"type": "layers", "diff_ids": ids}}).encode()
    contents["config.json"] = config
    contents["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": ["m:1"], "Layers": order}]).encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return stream.getvalue()


def read_layout(folder: Path) -> tuple[dict[str, Any], list[bytes]]:
    """Configuration and layers, by following the digests, each checked."""

    def blob(descriptor: dict[str, Any]) -> bytes:
        content = (folder / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert (f"sha256:{digest(content)}", len(content)) == (descriptor["digest"], descriptor["size"])
        return content

    (listed,) = json.loads((folder / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(listed))
    return json.loads(blob(manifest["config"])), [blob(layer) for layer in manifest["layers"]]


@pytest.mark.parametrize(
    "names",
    [["a/layer.tar", "b/layer.tar"], [f"blobs/sha256/{digest(layer)}" for layer in LAYERS]],
    ids=["as Docker 20 saves", "as Docker 25 saves"],
)
def test_layers_and_configuration_are_the_images(names: list[str], tmp_path: Path) -> None:
    from_stream(io.BytesIO(saved(names)), tmp_path / "layout")
    config, layers = read_layout(tmp_path / "layout")
    assert config["config"] == {"User": "1:1"}
    assert layers == LAYERS


def test_a_layer_that_comes_twice_is_a_link(tmp_path: Path) -> None:
    data = saved(["a/layer.tar", "b/layer.tar"], {"c/layer.tar": "../a/layer.tar"})
    from_stream(io.BytesIO(data), tmp_path / "layout")
    assert read_layout(tmp_path / "layout")[1] == [*LAYERS, LAYERS[0]]


def test_a_command_that_fails_and_another_archive_are_told(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="`sh -c exit 3` ended with exit code 3"):
        from_command(["sh", "-c", "exit 3"], tmp_path / "a")
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as archive:
        archive.add(__file__, "x")
    with pytest.raises(SaveError, match="holds no image of Docker's"):
        from_command(["cat", str(other)], tmp_path / "b")


def changed(name: str, content: bytes) -> bytes:
    """A saved image with another content of one of its files."""
    before, after = io.BytesIO(saved(["a/layer.tar", "b/layer.tar"])), io.BytesIO()
    with tarfile.open(fileobj=before) as archive, tarfile.open(fileobj=after, mode="w") as other:
        for member in archive:
            data = content if member.name == name else archive.extractfile(member).read()  # type: ignore[union-attr]
            member.size = len(data)
            other.addfile(member, io.BytesIO(data))
    return after.getvalue()


OUTSIDE = json.dumps([{"Config": "../../secret", "Layers": []}]).encode()
ABOVE = json.dumps({"rootfs": {"diff_ids": ["sha256:../../up", "sha256:" + "0" * 64]}}).encode()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("manifest.json", b"[", "manifest.json is damaged"),
        ("manifest.json", b"{}", "manifest.json is damaged"),
        ("manifest.json", b"[7]", "manifest.json is damaged"),
        ("manifest.json", b"\xff", "manifest.json is damaged"),
        ("manifest.json", b'[{"Config": "config.json"}]', "config.json is damaged"),
        ("manifest.json", OUTSIDE, "it names a file outside of the archive"),
        ("config.json", b"", "config.json is damaged"),
        ("config.json", b"null", "config.json is damaged"),
        ("config.json", b'{"rootfs": {"diff_ids": []}}', "its layers and its diff_ids do not go together"),
        ("config.json", ABOVE, "its layers and its diff_ids do not go together"),
    ],
)
def test_a_damaged_archive_is_told_and_reaches_nothing_outside(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(SaveError, match=told):
        from_stream(io.BytesIO(changed(name, content)), tmp_path / "deep/layout")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "secret"]
