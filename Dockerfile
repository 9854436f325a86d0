# talkhead on a CPU:
#   docker build -t talkhead .
#   docker run --rm -v "$PWD:/work" -v talkhead:/data talkhead fit --video person.mp4
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/talkhead
ENV PATH=/opt/talkhead/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Before the sources, so that a change of code does not download PyTorch again.
COPY constraints.txt ./
RUN pip install -c constraints.txt torch --index-url https://download.pytorch.org/whl/cpu
COPY . .
RUN pip install -c constraints.txt '.[evaluate]'

FROM python:3.11-slim-bookworm
# OpenCV needs them.
RUN apt-get update -q \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/talkhead /opt/talkhead
# Identities go to /data. It and the caches are writable whichever --user runs the container.
ENV PATH=/opt/talkhead/bin:$PATH TALKHEAD_HOME=/data NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --create-home --uid 1000 talkhead && mkdir -m 1777 /data /work
USER talkhead
WORKDIR /work
VOLUME /data
ENTRYPOINT ["talkhead"]
CMD ["--help"]
