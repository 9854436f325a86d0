"""Files that talkhead keeps between commands: jobs, and interrupted runs of speak and fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.fuzz.bases import WORDS
from benchmarks.fuzz.kinds.common import (
    check_video,
    command,
    home,
    output,
    placed_or_odd,
    read_home,
    sound,
)
from benchmarks.fuzz.mutations import raw, tensors, trees
from benchmarks.fuzz.trial import Kind, Setting, Trial

STATUSES = ("queued", "running", "done", "failed")


def jobs(setting: Setting) -> Trial:
    """Damage the job store, then list, show, retry, cancel or run its jobs."""
    where = home(setting)
    shutil.copytree(setting.bases / "jobs", where / "jobs")
    sound(setting)
    (setting.folder / "out").mkdir()
    files = sorted((where / "jobs").glob("*/*.json"))
    for path in files:
        path.write_text(path.read_text().replace("/case/", f"{setting.folder}/"))
    path = setting.rng.choice(files)
    setting.note(f"a job that is {path.parent.name}")
    path.write_bytes(setting.damage(path.read_bytes(), trees.mutate))
    if setting.chance(0.15):
        (where / "jobs" / "checksums.json").write_bytes(
            setting.damage(b'{"a": [1, 2]}', trees.mutate)
        )
    if setting.chance(0.1):
        path.unlink()
        path.symlink_to(setting.rng.choice(("/dev/zero", "/dev/null", str(path))))
        setting.note("a link")
    arguments = setting.rng.choice(
        (["jobs", "list"], ["jobs", "list", "--json"], ["jobs", "show", path.stem],
         ["jobs", "show", path.stem, "--json"], ["jobs", "retry"], ["jobs", "cancel"],
         ["jobs", "cancel", path.stem], ["dub", "--quiet"], ["dub", "--quiet", "--json"])
    )  # fmt: skip
    return Trial(lambda: command(*arguments, "--home", where), changes=("home/jobs/*", "out/*"))


def resume(setting: Setting) -> Trial:
    """Damage the work folder of an interrupted speak command, which then resumes."""
    work, target = setting.folder / "line", output(setting)
    shutil.copytree(setting.bases / "line", work)
    path = setting.rng.choice(sorted(work.iterdir()))
    setting.note(path.name)
    mutate: Callable[..., raw.Mutated] = raw.mutate
    if path.suffix in (".json", ".safetensors"):
        mutate = trees.mutate if path.suffix == ".json" else tensors.mutate
    path.write_bytes(setting.damage(path.read_bytes(), mutate))
    return Trial(
        lambda: _resume_speak(setting, target, work),
        changes=("line/*",),
        products=("out/*",),
        check=lambda: check_video(target),
    )


def _resume_speak(setting: Setting, target: Path, work: Path) -> None:
    from talkhead.app.request import OutputOptions
    from talkhead.app.speak import speak

    options = OutputOptions(subtitles="srt", transcript=WORDS, language="de", provenance=False)
    made = speak(setting.bases / "line.wav", output=target, options=options, device="cpu",
                 home=read_home(setting), renderer="warp", work=work)  # fmt: skip
    assert made.n_frames == 10, f"{made.n_frames} frames"


def dataset(setting: Setting) -> Trial:
    """Damage the work folder of a fit: dataset, checkpoint, predictor."""
    work = setting.folder / "work"
    shutil.copytree(setting.bases / "work", work)
    path = setting.rng.choice(sorted(p for p in work.rglob("*") if p.is_file()))
    setting.note(str(path.relative_to(work)))
    mutate: Callable[..., raw.Mutated] = raw.mutate
    if path.suffix in (".json", ".safetensors"):
        mutate = trees.mutate if path.suffix == ".json" else tensors.mutate
    path.write_bytes(setting.damage(path.read_bytes(), mutate))
    return Trial(lambda: _resume_fit(work), changes=("work/*",))


def _resume_fit(work: Path) -> None:
    """Load the files from which a fit resumes."""
    from benchmarks.fuzz import people
    from talkhead.app.evaluation.reference import held_out_frames
    from talkhead.app.workspace import prepared
    from talkhead.encoder.predictor.model import MotionPredictor
    from talkhead.progress import SilentProgress
    from talkhead.renderers.registry import get_renderer
    from talkhead.renderers.trainer import fit_renderer
    from talkhead.stage_timer import StageClock, read_stages
    from talkhead.storage import read_tensors

    read_stages(work / "stages.json")
    with StageClock(work / "stages.json").stage("packing"):
        found = prepared(work)
        kind, config = get_renderer("gaussian"), people.small_config("gaussian")
        fit_renderer(kind, found, config, work / "gaussian.safetensors", SilentProgress())
        MotionPredictor.from_tensors(read_tensors(work / "predictor.safetensors"), people.PREDICTOR)
        held_out_frames(found)


def encoder(setting: Setting) -> Trial:
    """Damage the weights passed to --encoder."""
    data = setting.damage(setting.base("encoder.safetensors"), tensors.mutate)
    path = placed_or_odd(setting, "encoder.safetensors", data)
    return Trial(lambda: _encode(path))


def _encode(path: Path) -> None:
    import numpy as np

    from talkhead.encoder.registry import load_encoder

    features = load_encoder(str(path)).encode(np.full(6_000, 0.1, np.float32))
    assert len(features.values) == 19, "wrong number of features"


KINDS = (
    Kind("jobs", jobs),
    Kind("resume", resume),
    Kind("dataset", dataset),
    Kind("encoder", encoder, 0.5),
)
