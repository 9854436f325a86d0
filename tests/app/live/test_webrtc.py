"""Viewers over WebRTC, with the real package: tracks, and a loopback through the server's WHEP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from live_fakes import FakePictures, make_local, until
from serving import TOKEN

from talkhead.app.live import broadcast
from talkhead.app.live import engine as engines
from talkhead.app.live.frames import LiveFrame
from talkhead.app.live.session import LiveSession
from talkhead.app.server import whep
from talkhead.app.server.application import make_application
from talkhead.app.server.live_sessions import LiveSessions
from talkhead.app.server.service import Service
from talkhead.app.server.settings import ServerSettings
from talkhead.errors import MediaError, TalkheadError
from talkhead.types import Float32, UInt8

pytest.importorskip("aiortc", reason="these tests run with `make test-agents`")

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from talkhead.app.live import webrtc
from talkhead.app.live.webrtc import AudioTrack, VideoTrack, Viewer

RATE = 24_000
SIZE = RATE // 25
N_BEATS, BEAT, N_NEEDED = 12, 10, 4
"""Beats of the line, frames of their loud and silent halves, and beats that must arrive."""


class Lamp(FakePictures):
    """Pictures that are white during sound."""

    size = (64, 48)

    def next(self, code: Float32) -> UInt8:
        super().next(code)
        return np.full((48, 64, 3), 255 if code[0] > 0.2 else 0, np.uint8)


def beats() -> np.ndarray[Any, Any]:
    """A tone that is on and off in turn, as 16-bit samples."""
    times = np.arange(BEAT * SIZE) / RATE
    tone = np.rint(16_000 * np.sin(2 * np.pi * 500 * times)).astype(np.int16)
    return np.tile(np.concatenate([np.zeros_like(tone), tone]), N_BEATS)


def onsets(found: Sequence[tuple[float, float]], least: float, step_s: float) -> list[float]:
    """Times at which values become larger than `least`, where nothing was lost since the one before."""
    return [
        time_s
        for (before_s, before), (time_s, value) in pairwise(found)
        if before <= least < value and time_s - before_s < 1.5 * step_s
    ]


def assert_regular(times_s: list[float], tolerance_s: float) -> None:
    """Beats that arrived are whole periods apart."""
    periods = np.diff(times_s) / (2 * BEAT * 0.04)
    assert np.abs(periods - np.rint(periods)).max() * 2 * BEAT * 0.04 < tolerance_s, times_s


async def frames(missing: Sequence[int] = (), n: int = 6) -> AsyncGenerator[LiveFrame, None]:
    """Frames from number 100 on, whose pictures and audio have the frame's number as value."""
    for index in range(100, 100 + n):
        if index not in missing:
            image = np.full((4, 6, 3), index, np.uint8)
            sound = np.full(SIZE, index * 100, np.int16)
            yield LiveFrame(image, sound, RATE, index, 0, 0, False, False)


async def all_of(track: Any) -> list[Any]:
    """Everything that a track gives out."""
    found = []
    try:
        while True:
            found.append(await track.recv())
    except MediaStreamError:
        return found


def test_both_tracks_count_the_samples() -> None:
    async def run() -> None:
        pictures = await all_of(VideoTrack(frames()))
        assert [one.pts for one in pictures] == [index * 3600 for index in range(100, 106)]
        assert {one.time_base.denominator for one in pictures} == {90_000}
        assert pictures[2].to_ndarray(format="rgb24")[0, 0, 0] == 102
        sounds = await all_of(AudioTrack(frames()))
        assert [one.pts for one in sounds] == [100 * 1920 + 960 * i for i in range(len(sounds))]
        assert len(sounds) == 11  # the last one waits for the samples that resampling holds back
        for one in sounds:
            index = one.pts // 1920  # the frame to which its middle belongs
            assert abs(int(one.to_ndarray()[0, 400]) - 100 * index) < 30

    asyncio.run(run())


def test_missed_frames_are_silent_and_keep_the_time() -> None:
    async def run() -> None:
        pictures = await all_of(VideoTrack(frames(missing=(102, 103))))
        assert [one.pts // 3600 for one in pictures] == [100, 101, 104, 105]
        sounds = await all_of(AudioTrack(frames(missing=(102, 103))))
        assert [one.pts for one in sounds] == [100 * 1920 + 960 * i for i in range(len(sounds))]
        values = {one.pts // 960: int(one.to_ndarray()[0, 400]) for one in sounds}
        assert abs(values[2 * 102 + 1]) < 30 and abs(values[2 * 104 + 1] - 10_400) < 30

    asyncio.run(run())


def test_a_session_that_fails_ends_its_tracks() -> None:
    async def failing() -> AsyncGenerator[LiveFrame, None]:
        raise MediaError("the footage is gone")
        yield

    async def run() -> None:
        track = VideoTrack(failing())
        with pytest.raises(MediaStreamError, match="the footage is gone"):
            await track.recv()
        assert track.readyState == "ended"

    asyncio.run(run())


@pytest.mark.parametrize("offer", ["", "hello", "v=0\r\n", "v=0\r\nm=video 9 x 96\r\n"])
def test_damaged_offers_are_refused(offer: str) -> None:
    async def run() -> None:
        ended: list[bool] = []
        viewer = Viewer(frames(), frames(), lambda: ended.append(True))
        with pytest.raises(TalkheadError, match="the offer"):
            await viewer.answer(offer)
        await viewer.close()
        await viewer.close()
        assert ended == [True]

    asyncio.run(run())


# aiortc notices the first two in createAnswer only, and cannot close the connection of the first one.
# It would notice the others when the answer has been made.
DAMAGES = (
    ("a=mid:0", "a=mid:7"),
    ("a=recvonly", "a=recv"),
    ("a=mid:1", "a=mid:0"),
    ("a=mid:1", "a=mid"),
)


@pytest.mark.parametrize(("old", "new"), DAMAGES)
def test_offers_with_damaged_lines_are_refused(old: str, new: str) -> None:
    async def run() -> None:
        ended: list[bool] = []
        offer = await Client().offer()
        viewer = Viewer(frames(), frames(), lambda: ended.append(True))
        with pytest.raises(TalkheadError, match="not a session description"):
            await viewer.answer(offer.replace(old, new, 1))
        await viewer.close()
        assert ended == [True]

    asyncio.run(run())


def test_offers_that_repeat_a_section_are_refused() -> None:
    async def run() -> None:
        client = Client()
        offer = await client.offer()
        viewer = Viewer(frames(), frames(), lambda: None)
        with pytest.raises(TalkheadError, match="not a session description"):
            await viewer.answer(offer + offer[offer.index("m=audio ") :])
        await viewer.close()
        await client.connection.close()

    asyncio.run(run())


@pytest.mark.parametrize("kinds", [("video",), ("audio",), ("audio", "video", "video")])
def test_offers_of_some_media_are_answered(kinds: tuple[str, ...]) -> None:
    async def run() -> None:
        client, viewer = Client(), Viewer(frames(), frames(), lambda: None)
        answer = await viewer.answer(await client.offer(kinds))
        assert [line[2:7] for line in answer.splitlines() if line.startswith("m=")] == list(kinds)
        assert answer.count("a=sendonly") == len(set(kinds))
        await viewer.close()
        await client.connection.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("during", "error", "words"),
    [
        ("wait", TalkheadError, "the server's addresses were not found in time"),
        ("fail", TypeError, "a fault of the server"),
        ("end", TalkheadError, "the live session ended"),
        ("end and fail", TalkheadError, "the live session ended"),
    ],
)
def test_errors_of_the_server_are_not_those_of_the_offer(
    monkeypatch: pytest.MonkeyPatch, during: str, error: type[Exception], words: str
) -> None:
    async def run() -> None:
        ended: list[bool] = []
        viewer = Viewer(frames(), frames(), lambda: ended.append(True))

        async def gather(connection: RTCPeerConnection, answer: Any) -> None:
            if during == "wait":
                await asyncio.Event().wait()
            if "end" in during:
                await viewer.close()
            if "fail" in during:
                raise TypeError("a fault of the server")

        client = Client()
        offer = await client.offer()
        monkeypatch.setattr(webrtc, "GATHER_S", 0.01)
        monkeypatch.setattr(RTCPeerConnection, "setLocalDescription", gather)
        with pytest.raises(error, match=words):
            await viewer.answer(offer)
        await viewer.close()
        assert ended == [True]
        await client.connection.close()

    asyncio.run(run())


def test_frames_end_although_the_connection_cannot_be_closed() -> None:
    async def fail(connection: RTCPeerConnection) -> None:
        raise OSError("a fault")

    async def run() -> None:
        ended: list[bool] = []
        given = [frames(), frames()]
        for one in given:
            await anext(one)
        viewer = Viewer(*given, lambda: ended.append(True))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RTCPeerConnection, "close", fail)
            with pytest.raises(OSError, match="a fault"):
                await viewer.close()
        assert ended == [True]
        for one in given:
            with pytest.raises(StopAsyncIteration):
                await anext(one)

    asyncio.run(run())


class Client:
    """A viewer, and what has arrived: times and values of pictures and of samples."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.on("track", self._receive)
        self.pictures: list[tuple[float, float]] = []
        self.sounds: list[tuple[float, float]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def offer(self, kinds: Sequence[str] = ("video", "audio")) -> str:
        for kind in kinds:
            self.connection.addTransceiver(kind, direction="recvonly")
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def _receive(self, track: Any) -> None:
        self._tasks.append(asyncio.create_task(self._collect(track)))

    async def _collect(self, track: Any) -> None:
        with suppress(MediaStreamError):  # it has ended
            while True:
                self._add(track.kind, await track.recv())

    def _add(self, kind: str, one: Any) -> None:
        start_s = float(one.pts * one.time_base)
        if kind == "video":
            self.pictures.append((start_s, float(one.to_ndarray(format="rgb24").mean())))
            return
        samples = np.abs(one.to_ndarray().astype(float)).reshape(-1)[::2]  # left and right in turn
        for i in range(0, len(samples), 48):  # milliseconds
            self.sounds.append((start_s + i / 48_000, float(samples[i : i + 48].max())))


@asynccontextmanager
async def server(home: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, LiveSessions]]:
    """The API, without its jobs, and a session's engine that never repeats a picture."""
    service = Service(ServerSettings(home, token=TOKEN), lambda: None)  # type: ignore[arg-type,return-value]
    app = make_application(service)

    def make(request: Any) -> tuple[str, LiveSession]:
        return "anna", make_local(Lamp(), sample_rate=RATE)[0]

    app.state.live = LiveSessions(make)
    transport = httpx2.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1"}
    base = "http://127.0.0.1:8730"
    async with httpx2.AsyncClient(transport=transport, headers=headers, base_url=base) as api:
        yield api, app.state.live
        await app.state.live.close()


async def watch(api: httpx2.AsyncClient, url: str, client: Client) -> str:
    """Connect a viewer; returns its address."""
    answer = await api.post(
        f"{url}/whep", content=await client.offer(), headers={"Content-Type": "application/sdp"}
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["content-type"].startswith("application/sdp")
    assert "VP8/90000" in answer.text and "H264" not in answer.text
    assert "opus/48000" in answer.text and "PCMU" not in answer.text
    await client.accept(answer.text)
    return str(answer.headers["location"])


def test_picture_and_sound_arrive_in_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine would repeat pictures, and leave frames out.
    monkeypatch.setattr(engines, "LATE_S", 1e9)
    monkeypatch.setattr(broadcast, "N_QUEUED", 10_000)

    async def run() -> None:
        async with server(tmp_path) as (api, sessions):
            url = (await api.post("/v1/live", json={"sample_rate": RATE})).json()["url"]
            client = Client()
            place = await watch(api, url, client)
            await until(lambda: client.pictures and client.sounds)
            session = sessions.all()[0].session
            await session.push_audio(beats(), RATE, last_chunk=True)

            def seen() -> list[float]:
                return onsets(client.pictures, 128, 0.04)

            def heard() -> list[float]:
                return onsets(client.sounds, 2000, 0.001)

            await until(lambda: len(seen()) >= N_NEEDED <= len(heard()))
            assert_regular(seen(), 0.001)
            assert_regular(heard(), 0.01)
            assert (await api.delete(place)).status_code == 204
            assert (await api.delete(place)).status_code == 404
            assert len(sessions.all()) == 1  # the session goes on
            await client.connection.close()

    asyncio.run(run())


def test_viewers_end_with_the_session_and_are_limited(tmp_path: Path) -> None:
    async def run() -> None:
        async with server(tmp_path) as (api, sessions):
            url = (await api.post("/v1/live", json={"sample_rate": RATE})).json()["url"]
            clients = [Client() for _ in range(2)]
            for client in clients:
                await watch(api, url, client)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(whep, "MAX_VIEWERS", 2)
                header = {"Content-Type": "application/sdp"}
                refused = await api.post(f"{url}/whep", content="v=0", headers=header)
                assert refused.status_code == 503
            bad = await api.post(f"{url}/whep", content="v=0", headers=header)
            assert bad.status_code == 422 and "must receive" in bad.json()["detail"]
            entry = sessions.all()[0]
            assert len(entry.viewers) == 2
            assert (await api.delete(url)).status_code == 204
            await until(lambda: not entry.viewers)
            for client in clients:
                await client.connection.close()

    asyncio.run(run())


def test_a_viewer_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async def run() -> None:
        async with server(tmp_path) as (api, sessions):
            url = (await api.post("/v1/live", json={"sample_rate": RATE})).json()["url"]
            client = Client()
            await watch(api, url, client)
            await until(lambda: client.pictures)
            await client.connection.close()
            await until(lambda: not sessions.all()[0].viewers)

    asyncio.run(run())


def test_a_viewer_that_never_connects_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webrtc, "CONNECT_S", 0.05)

    async def run() -> None:
        async with server(tmp_path) as (api, sessions):
            url = (await api.post("/v1/live", json={"sample_rate": RATE})).json()["url"]
            client = Client()
            header = {"Content-Type": "application/sdp"}
            answer = await api.post(f"{url}/whep", content=await client.offer(), headers=header)
            assert answer.status_code == 201
            await until(lambda: not sessions.all()[0].viewers)
            await client.connection.close()

    asyncio.run(run())


def test_a_viewer_that_has_connected_stays(tmp_path: Path) -> None:
    async def run() -> None:
        async with server(tmp_path) as (api, sessions):
            url = (await api.post("/v1/live", json={"sample_rate": RATE})).json()["url"]
            client = Client()
            await watch(api, url, client)
            await until(lambda: client.pictures)
            (viewer,) = sessions.all()[0].viewers.values()
            viewer._give_up()  # when its time has passed
            n_seen = len(client.pictures)
            await until(lambda: len(client.pictures) > n_seen + 5)
            assert list(sessions.all()[0].viewers.values()) == [viewer]
            await client.connection.close()

    asyncio.run(run())
