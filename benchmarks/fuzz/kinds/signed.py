"""Signed files, certificates and keys, as read by verify."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.fuzz.bases import SIGNED
from benchmarks.fuzz.kinds.common import command, odd_file, placed_or_odd
from benchmarks.fuzz.mutations import hostile, raw, texts
from benchmarks.fuzz.trial import DONE, REFUSED, Kind, Setting, Trial
from talkhead.app.output.signing_keys import CHAIN, KEY, ROOT

WORDS = (b"talkhead", b"anna", b"paste", b"Yes.", b"c2pa.created", b"signer", b"synthetic")
"""Words of a manifest."""


def verify(setting: Setting) -> Trial:
    """Damage bytes of a file, or words of its manifest."""
    if setting.chance(0.25):
        return _hostile(setting)
    if setting.chance(0.05):
        path, _ = odd_file(setting, setting.rng.choice(SIGNED))
        return _verified(setting, path)
    name = setting.rng.choice(SIGNED)
    setting.note(name)
    data, beside = setting.base(name), b""
    if name.endswith("webm"):
        beside = setting.base("signed.c2pa")
        if setting.rng.random() < 0.7:
            beside = setting.damage(beside, _reworded)
        else:
            data = setting.damage(data, raw.mutate)
        setting.place("in/signed.c2pa", beside)
    else:
        data = setting.damage(data, _reworded)
    return _verified(setting, setting.place(f"in/{name}", data))


def _reworded(data: bytes, rng: object) -> raw.Mutated:
    """Replace a word of a manifest with another of the same length, or damage bytes."""
    from random import Random

    assert isinstance(rng, Random)
    found = [word for word in WORDS if word in data]
    if not found or rng.random() < 0.6:
        return raw.mutate(data, rng)
    word = rng.choice(found)
    new = hostile.text(rng).encode("utf-8", "surrogatepass")[: len(word)].ljust(len(word), b"x")
    return data.replace(word, new), f"{word!r} is {new!r}"


def _verified(setting: Setting, path: Path, *more: object) -> Trial:
    arguments = ["verify", path, *more, *(["--json"] if setting.rng.random() < 0.4 else [])]
    return Trial(lambda: command(*arguments), (DONE,))


def _hostile(setting: Setting) -> Trial:
    """Sign a valid manifest with hostile texts, or one that is stored on a server."""
    import c2pa

    from talkhead.app.output.provenance import Statement, manifest_of
    from talkhead.app.output.signing_keys import credentials

    name = setting.rng.choice(("picture.png", "line.wav", "clip.mp4"))
    by = credentials(setting.bases / "home", None, None)
    statement = Statement(_text(setting), _text(setting), _text(setting))
    manifest = manifest_of(_text(setting), statement)
    manifest["claim_generator_info"] = [{"name": _text(setting) or "x", "version": _text(setting)}]
    action = manifest["assertions"][0]["data"]["actions"][0]
    action["digitalSourceType"] = f"http://example.org/{_text(setting)}"
    kind = {"png": "image/png", "wav": "audio/wav", "mp4": "video/mp4"}[name[-3:]]
    source, target = setting.bases / name, setting.folder / "in" / name
    target.parent.mkdir()
    signer = c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(by.algorithm.encode(), by.chain, by.key, None)
    )
    builder = c2pa.Builder.from_json(json.dumps(manifest))
    if setting.rng.random() < 0.2:
        setting.note("on a server")
        builder.set_no_embed()
        builder.set_remote_url(setting.traps.url)
    with source.open("rb") as whole, target.open("w+b") as signed:
        builder.sign(signer, kind, whole, signed)
    return _verified(setting, target)


def _text(setting: Setting) -> str:
    """A hostile text that JSON can hold."""
    while True:
        text = hostile.text(setting.rng)[:200]
        if not any("\ud800" <= c <= "\udfff" for c in text):
            setting.note(repr(text[:30]))
            return text


def trust(setting: Setting) -> Trial:
    """Damage the trusted roots, or the key and certificates of an output."""
    if setting.rng.random() < 0.5:
        roots = setting.place("in/root.pem", setting.damage(setting.base(ROOT), _pem))
        if setting.chance(0.08):
            roots.unlink()
            roots, _ = odd_file(setting, "root.pem")
        path = setting.place("in/signed.png", setting.base("signed.png"))
        return _verified(setting, path, "--trust", roots)
    chain, key = setting.base(CHAIN), setting.base(KEY)
    if setting.rng.random() < 0.5:
        chain = setting.damage(chain, _pem)
    else:
        key = setting.damage(key, _pem)
    files = placed_or_odd(setting, "chain.pem", chain), placed_or_odd(setting, "key.pem", key)
    return Trial(lambda: _sign(setting, *files), (DONE, REFUSED), products=("out/*",))


def _pem(data: bytes, rng: object) -> raw.Mutated:
    from random import Random

    assert isinstance(rng, Random)
    if rng.random() < 0.3:
        return texts.mutate(data, rng)
    if rng.random() < 0.2:
        return rng.choice(((data * 3, "three times"), (b"", "empty"), (data[::-1], "reversed")))
    return raw.mutate(data, rng)


def _sign(setting: Setting, certificate: Path, key: Path) -> None:
    """Sign a picture as an output is signed."""
    from talkhead.app.output.provenance import Statement, sign
    from talkhead.app.output.signing_keys import credentials
    from talkhead.storage import atomic_path

    by = credentials(setting.folder / "home", certificate, key)
    target = setting.folder / "out" / "signed.png"
    target.parent.mkdir()
    with atomic_path(target) as part:
        sign(setting.bases / "picture.png", part, "signed.png", Statement("a", "head", None), by)


KINDS = (Kind("verify", verify, 1.5), Kind("trust", trust, 0.7))
