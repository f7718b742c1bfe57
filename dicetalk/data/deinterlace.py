"""Interlaced video to full frames with FFmpeg's bwdif, one for one, so that time stamps stay what they are.

Only frames that the file marks as interlaced are touched. Combs that a progressive file has in its pixels,
because somebody encoded interlaced video as if it were not, cannot be told from fine detail and stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av
from av.filter import Graph


def deinterlaced(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Pass frames on; from the first interlaced one on through the filter, which leaves progressive ones."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        graph = graph or _deinterlacer(frame)
        graph.push(frame)
        yield from _pull(graph)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph)


def _deinterlacer(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def _pull(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
