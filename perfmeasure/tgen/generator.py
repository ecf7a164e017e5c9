"""Generators: they make one stream, the streams of a flow, or the flows of a traffic action.

Which of them, and when, a Markov model says: it is asked for an observation, a stream or flow is
made, and the delay that came with it passes before it is asked again. A generator is complete when
its model has ended and all that it made has ended.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from perfmeasure.tgen.actions import StreamOptions
from perfmeasure.tgen.logline import place
from perfmeasure.tgen.markov import (
    MarkovModel,
    Walk,
    builtin_flow_model,
    builtin_stream_model,
)
from perfmeasure.tgen.peer import Peer
from perfmeasure.tgen.stream import Context, Route, Stream, open_stream

_PLACE = place("on_end")
_NEW = place("new")

_AUTH_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@#&?!"
_CHILD = {"stream": "stream", "flow": "stream", "traffic": "flow"}


class Generator:
    """One generator.

    Args:
        context: what all streams share.
        kind: ``stream`` (one stream), ``flow`` (streams) or ``traffic`` (flows).
        vertex_id: the action it is for.
        options: what the action asks for.
        on_end: called once when it is complete.
    """

    def __init__(
        self,
        context: Context,
        kind: str,
        vertex_id: str,
        options: StreamOptions,
        on_end: Callable[[], None],
    ) -> None:
        self._context = context
        self._kind = kind
        self._vertex_id = vertex_id
        self._options = options
        self._on_end = on_end
        self._proxy = _draw_proxy(options)
        self._made = 0
        self._completed = 0
        self._is_done_making = False
        self._walk = self._draw_walk()
        # A single stream is a flow of one, and counted as such.
        self._counted_as = "traffic" if kind == "traffic" else "flow"
        context.statistics.created(self._counted_as)
        context.log.info(_NEW, f"Created new generator of kind {kind} on action '{vertex_id}'")

    def start(self) -> None:
        """Make the first stream or flow."""
        if self._walk is not None:
            self._make_next(self._walk)
            return
        self._is_done_making = True
        self._make()

    def _draw_walk(self) -> Walk | None:
        options = self._options
        model: MarkovModel
        if self._kind == "stream":
            return None
        if self._kind == "flow":
            model = options.stream_model or builtin_stream_model()
        else:
            model = options.flow_model or builtin_flow_model()
        return model.walk(options.seeds.getrandbits(32))

    def _make_next(self, walk: Walk) -> None:
        observation, delay_us = walk.next()
        if observation == "F":
            self._is_done_making = True
            self._check_complete()
            return
        # Before the stream is made: it may end at once, and must not end us.
        self._context.reactor.callLater(delay_us / 1e6, self._make_next, walk)
        self._make()

    def _make(self) -> None:
        self._made += 1
        if self._kind == "traffic":
            Generator(
                self._context, "flow", self._vertex_id, self._options, self._on_flow_end
            ).start()
            return
        options = self._options
        peer = random.choice(options.peers)  # noqa: S311 - any peer does
        route = Route(peer, *self._proxy)
        open_stream(self._context, self._vertex_id, options, route, self._on_stream_end)

    def _on_stream_end(self, stream: Stream) -> None:
        self._context.statistics.ended("stream", is_success=stream.is_success)
        self._on_flow_end()

    def _on_flow_end(self) -> None:
        self._completed += 1
        self._check_complete()

    def _check_complete(self) -> None:
        child = _CHILD[self._kind]
        status = (
            f"Generator status for action '{self._vertex_id}':"
            f" completed {self._completed} of {self._made} {child}s, {self._counted_as} is"
        )
        if not self._is_done_making or self._completed < self._made:
            self._context.log.info(_PLACE, f"{status} still active")
            return
        self._context.log.message(_PLACE, f"{status} complete")
        self._context.statistics.ended(self._counted_as, is_success=True)
        self._on_end()


def _draw_proxy(options: StreamOptions) -> tuple[Peer | None, str | None, str | None]:
    """Return the proxy, user name and password for all streams of a generator."""
    if not options.socks_proxies:
        return None, None, None
    proxy = random.choice(options.socks_proxies)  # noqa: S311 - any proxy does
    if options.socks_auth is not None:
        drawn = "".join(options.socks_auth.choice(_AUTH_LETTERS) for _ in range(7))
        return proxy, drawn, drawn
    return proxy, options.socks_username, options.socks_password
