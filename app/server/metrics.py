"""Metrics of the server in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one server, and gauges that are read when metrics are requested.

    Args:
        gauges: Function that returns values by name; a value may be a mapping from a label
            "status" to numbers.
    """

    def __init__(self, gauges: Callable[[], Mapping[str, float | Mapping[str, float]]]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "talkhead_requests", "Requests", ("method", "status"), registry=self._registry
        )
        self._ended = Counter(
            "talkhead_jobs_ended", "Jobs that ended", ("kind", "status"), registry=self._registry
        )
        self._frames = Counter(
            "talkhead_frames", "Frames of finished videos", registry=self._registry
        )
        self._seconds = Counter(
            "talkhead_job_seconds", "Time spent on jobs", ("kind",), registry=self._registry
        )
        self._registry.register(_Gauges(gauges))

    def count_request(self, method: str, status: int) -> None:
        """Count a request.

        Args:
            method: Its method.
            status: Status code of the response.
        """
        known = method if method in ("GET", "POST", "DELETE", "WEBSOCKET") else "other"
        self._requests.labels(known, str(status)).inc()

    def count_job(self, kind: str, status: str, n_frames: int, seconds: float) -> None:
        """Count a job that has ended.

        Args:
            kind: "video" or "fit".
            status: Its status.
            n_frames: Number of frames of its video.
            seconds: Time that it took.
        """
        self._ended.labels(kind, status).inc()
        self._frames.inc(n_frames)
        self._seconds.labels(kind).inc(seconds)

    def text(self) -> bytes:
        """Format all metrics.

        Returns:
            The text.
        """
        return generate_latest(self._registry)


class _Gauges(Collector):
    """Reads the gauges."""

    def __init__(self, gauges: Callable[[], Mapping[str, float | Mapping[str, float]]]) -> None:
        self._gauges, self._started = gauges, time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each gauge."""
        for name, value in self._gauges().items():
            title = name.replace("_", " ").capitalize()
            if isinstance(value, Mapping):
                family = GaugeMetricFamily(f"talkhead_{name}", title, labels=("status",))
                for status, number in value.items():
                    family.add_metric((status,), number)
                yield family
            else:
                yield GaugeMetricFamily(f"talkhead_{name}", title, value=value)
        uptime = time.monotonic() - self._started
        yield GaugeMetricFamily("talkhead_uptime_seconds", "Uptime in seconds", value=uptime)
