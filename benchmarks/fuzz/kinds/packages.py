"""Packages, as folders and exported archives; files in them are damaged, mostly with correct
checksums.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.fuzz import people
from benchmarks.fuzz.bases import ARCHIVE
from benchmarks.fuzz.kinds.common import (
    check_video,
    command,
    fitted,
    home,
    output,
    placed_or_odd,
    sound,
)
from benchmarks.fuzz.kinds.common import quietly as style
from benchmarks.fuzz.mutations import playlists, raw, tensors, trees, zips
from benchmarks.fuzz.trial import Kind, Setting, Trial

MANIFEST = "identity.json"
HEADS = ("gaussian.safetensors", "nerf.safetensors", "warp.safetensors")
TENSORS = ("idle.safetensors", "face.safetensors")


def _sealed(folder: Path) -> None:
    """Update the checksums in the manifest to the current files."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        if (folder / name).is_file():
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            manifest["files"][name] = digest
    path.write_text(json.dumps(manifest))


def _damaged_file(setting: Setting, name: str, mutate: Callable[..., raw.Mutated]) -> Path:
    """A home whose package has a damaged file, usually with a correct checksum."""
    where = home(setting)
    path = where / "identities" / people.NAME / name
    setting.note(name)
    path.write_bytes(setting.damage(path.read_bytes(), mutate))
    if not setting.chance(0.05):
        _sealed(path.parent)
    return where


def _said(setting: Setting, where: Path, renderer: str, mode: str) -> Trial:
    """Run speak with the identity of a home."""
    target, line = output(setting), sound(setting)
    arguments = ["speak", "--audio", line, "-o", target, "--home", where, "--mode", mode,
                 "--device", "cpu", "--renderer", renderer, *style(setting.rng)]  # fmt: skip
    return Trial(
        lambda: command(*arguments),
        changes=("home/signing/*",),
        products=("out/line.mp4",),
        check=lambda: check_video(target),
    )


def head(setting: Setting) -> Trial:
    """Damage a head's tensors."""
    name = setting.rng.choice(HEADS)
    where = _damaged_file(setting, name, tensors.mutate)
    renderer = name.partition(".")[0]
    if setting.rng.random() < 0.5:
        return Trial(lambda: _drawn(where, renderer))
    return _said(setting, where, renderer, setting.rng.choice(("paste", "head")))


def _drawn(where: Path, renderer: str) -> None:
    """Render the head in the pose of a frame."""
    import torch

    from talkhead.app.avatar import load_renderer
    from talkhead.app.composer.idle_clip import load_idle
    from talkhead.app.home.identities import Home

    package = Home(where).load()
    clip = load_idle(package)
    made = load_renderer(package, renderer, torch.device("cpu"))
    codes, views, ks = (torch.from_numpy(a[:2].copy()) for a in (clip.codes, clip.viewmats,
                                                               clip.crop_ks))  # fmt: skip
    with torch.no_grad():
        rendering = made.render(codes, views, ks, clip.crop_height, clip.crop_width)
    assert rendering.rgb.shape == (2, clip.crop_height, clip.crop_width, 3), "another shape"


def predictor(setting: Setting) -> Trial:
    """Damage the predictor's tensors."""
    where = _damaged_file(setting, "predictor.safetensors", tensors.mutate)
    line = sound(setting)
    if setting.rng.random() < 0.3:
        return _said(setting, where, "warp", "paste")
    return Trial(lambda: _heard(where, line))


def _heard(where: Path, line: Path) -> None:
    import numpy as np

    from talkhead.app.avatar import speech_codes
    from talkhead.app.home.identities import Home

    codes = speech_codes(line, Home(where).load())
    assert np.isfinite(codes).all(), "codes that are not numbers"


def idle(setting: Setting) -> Trial:
    """Damage the idle clip: its video, tracks, face model or background."""
    name = setting.rng.choice(("idle.mp4", "plate.png", *TENSORS, *TENSORS))
    mutate: Callable[..., raw.Mutated] = tensors.mutate
    if name == "idle.mp4":
        mutate = raw.mutate if setting.rng.random() < 0.7 else _playlist_of(setting)
    elif name == "plate.png":
        mutate = setting.rng.choice((raw.mutate, raw.mutate_png))
    where = _damaged_file(setting, name, mutate)
    mode = setting.rng.choice(("paste", "paste", "head"))
    return _said(setting, where, setting.rng.choice(("warp", "gaussian")), mode)


def _playlist_of(setting: Setting) -> Callable[..., raw.Mutated]:
    return lambda data, rng: playlists.make(rng, setting.traps)


def package(setting: Setting) -> Trial:
    """Damage the manifest or remove a file, then run a command on identities, or speak."""
    where = home(setting)
    folder = where / "identities" / people.NAME
    manifest = folder / MANIFEST
    how = setting.rng.random()
    if how < 0.55:
        manifest.write_bytes(setting.damage(manifest.read_bytes(), trees.mutate))
    elif how < 0.85:
        _mutate_config(setting, manifest)
    elif not setting.plain:
        _lose(setting, folder)
    name = setting.rng.choice(("list", "show", "export", "speak", "speak"))
    if name == "speak":
        return _said(setting, where, setting.rng.choice(("warp", "gaussian", "nerf")), "paste")
    arguments: list[object] = ["identities", name, "--home", where]
    if name == "export":
        arguments += ["-o", output(setting, "anna.talkhead")]
    elif setting.rng.random() < 0.5:
        arguments.append("--json")
    return Trial(lambda: command(*arguments), products=("out/*",))


def _mutate_config(setting: Setting, manifest: Path) -> None:
    """Damage only a component's config: reading it is tested elsewhere."""
    data = json.loads(manifest.read_bytes())
    places = [data["predictor"], data["encoder"], *data["renderers"].values()]
    part = setting.rng.choice(places)
    text = setting.damage(json.dumps(part["config"]).encode(), trees.mutate)
    try:
        part["config"] = json.loads(text)
    except (ValueError, RecursionError):
        part["config"] = []
    manifest.write_text(json.dumps(data))


def _lose(setting: Setting, folder: Path) -> None:
    """Remove a file, or replace it with a folder or a link."""
    path = setting.rng.choice(sorted(folder.iterdir()))
    how = setting.rng.choice(("gone", "folder", "link", "device"))
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(setting.bases / "words.txt")
    elif how == "device":
        path.symlink_to("/dev/zero")
    setting.note(f"{path.name}: {how}")


def archive(setting: Setting) -> Trial:
    """Damage an exported file, import it, and speak if the import is accepted."""
    data = setting.base(ARCHIVE)
    data = setting.damage(data, zips.mutate if setting.rng.random() < 0.6 else _repacked)
    where = setting.folder / "home"
    file = placed_or_odd(setting, "bea.talkhead", data)
    name = ["--name", "bea"] if setting.rng.random() < 0.5 else []
    line, target = sound(setting), output(setting)

    def do() -> None:
        try:
            command("identities", "import", file, "--home", where, *name)
        except SystemExit as ended:
            if ended.code:
                raise
        command("speak", "--audio", line, "-o", target, "--home", where, "--device", "cpu",
                "--quiet", "--renderer", "warp")  # fmt: skip

    return Trial(do, changes=("home/*",), products=("out/*",), check=lambda: check_video(target))


def _repacked(data: bytes, rng: object) -> raw.Mutated:
    """Make a valid archive of a package with a damaged file."""
    from random import Random

    assert isinstance(rng, Random)
    files = zips.members(data)
    name = rng.choice((MANIFEST, *HEADS, *TENSORS, "predictor.safetensors", "idle.mp4"))
    mutate = trees.mutate if name == MANIFEST else tensors.mutate
    if name == "idle.mp4":
        mutate = raw.mutate
    files[name], what = mutate(files[name], rng)
    if name != MANIFEST:
        manifest = json.loads(files[MANIFEST])
        manifest["files"][name] = hashlib.sha256(files[name]).hexdigest()
        files[MANIFEST] = json.dumps(manifest).encode()
    return zips.archive_of(files), f"{name}: {what}"


def several(setting: Setting) -> Trial:
    """Damage other files of a home, or add a second package under another name."""
    where = home(setting)
    how = setting.rng.choice(("latest", "twin", "stray"))
    if how == "latest":
        latest = where / "latest.json"
        latest.write_bytes(setting.damage(latest.read_bytes(), trees.mutate))
    elif how == "twin" and not setting.plain:
        shutil.copytree(fitted(setting), where / "identities" / _name(setting))
    elif not setting.plain:
        setting.place(f"home/{_name(setting)}/{MANIFEST}", b"{}")
        setting.place(f"home/identities/{_name(setting)}", b"x")
    arguments = setting.rng.choice(
        (["list"], ["list", "--json"], ["show"], ["remove", people.NAME, "--yes"])
    )
    return Trial(
        lambda: command("identities", *arguments, "--home", where),
        changes=("home/*",) if arguments[0] == "remove" else (),
    )


def _name(setting: Setting) -> str:
    """A folder name that other programs may have created."""
    names = ("bea", "x\x1b[2J", "x\nFORGED: signed by a newsroom, trusted", "é", "-x", "\udcff",
             "a b", "x" * 200, ".hidden", "[/]", "\u202ex")  # fmt: skip
    name = setting.rng.choice(names)
    setting.note(f"a folder {name[:30]!r}")
    return name


KINDS = (
    Kind("head", head, 2.0),
    Kind("predictor", predictor),
    Kind("idle", idle, 1.5),
    Kind("package", package, 1.5),
    Kind("archive", archive),
    Kind("home", several, 0.5),
)
