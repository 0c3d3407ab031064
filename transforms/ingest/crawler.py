"""One worker's share of the photographs, fetched and prepared concurrently.

An event loop waits for servers and stores; as many threads as there are cores decode, for which Pillow releases the
interpreter's lock. Results are staged every few seconds, so a killed run loses no more than that.
"""

import asyncio
import os
import socket
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Final

from model.errors import InputError
from model.memory import return_freed_memory
from transforms.ingest.staging import read_staged, stage
from transforms.photographs.prepare import Preparation, Prepared, prepare_photograph, read_photograph
from transforms.sources.fetch import Fetched, Fetcher, FetchError
from transforms.sources.fetched_pages import is_page, picture_of
from transforms.sources.manners import Manners
from transforms.storage.files import filesystem
from transforms.storage.memory import DEFAULT_BYTES, process_memory
from transforms.storage.tally import Tally
from transforms.storage.urls import LOCAL, NotAllowedError, check_scheme, host_key, is_web, scheme_of
from transforms.training_set.records import Photograph, Reject, Rejection, internal_reject
from transforms.training_set.shards import StagedSample

STAGE_EVERY_S: Final = 3.0
STAGE_EVERY_PHOTOGRAPHS: Final = 256
STORE_READERS: Final = 16

PHOTOGRAPHS_DONE = Tally("photographs")
"""The number of photographs that this process has finished, for the progress bar."""


def crawl(
    photographs: Sequence[Photograph],
    out: str,
    preparation: Preparation,
    manners: Manners,
    memory_bytes: int = DEFAULT_BYTES,
) -> list[StagedSample | Reject]:
    """Processes each photograph that has not been processed before; returns the outcomes of all, in their order."""
    done = read_staged(out)
    waiting = [photograph for photograph in photographs if photograph.source not in done]
    for photograph in photographs:
        if photograph.source in done:
            _count(done[photograph.source])
    if waiting:
        new = asyncio.run(_Crawl(out, preparation, manners, memory_bytes).run(waiting))
        done.update((item.source, item) for item in new)
    return [done[photograph.source] for photograph in photographs]


class _Crawl:
    """The state of a crawl: outcomes that wait to be staged, and staged ones."""

    def __init__(self, out: str, preparation: Preparation, manners: Manners, memory_bytes: int) -> None:
        self._out = out
        self._preparation = preparation
        self._manners = manners
        self._memory = process_memory(memory_bytes)
        return_freed_memory()
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._unstaged: list[Prepared | Reject] = []
        self._staged: list[StagedSample | Reject] = []
        self._staging = asyncio.Lock()

    async def run(self, photographs: Sequence[Photograph]) -> list[StagedSample | Reject]:
        """Processes photographs, those of each host in turn, and those of different hosts concurrently."""
        queues: dict[str, deque[Photograph]] = defaultdict(deque)
        for photograph in photographs:
            queues[web_host(photograph)].append(photograph)
        with (
            ThreadPoolExecutor(self._cores) as self._decoders,
            ThreadPoolExecutor(STORE_READERS) as self._readers,
            ThreadPoolExecutor(1) as self._writer,
        ):
            async with Fetcher(self._manners, self._memory.files) as self._fetcher:
                await self._work(queues)
        return self._staged

    async def _work(self, queues: dict[str, deque[Photograph]]) -> None:
        tasks = []
        for host, queue in queues.items():
            workers = self._manners.host_connections if host else STORE_READERS
            tasks += [asyncio.create_task(self._empty(queue)) for _ in range(min(workers, len(queue)))]
        stager = asyncio.create_task(self._stage_now_and_then())
        try:
            emptied: asyncio.Future[Any] = asyncio.gather(*tasks)
            await asyncio.wait([emptied, stager], return_when=asyncio.FIRST_COMPLETED)
            for future in (emptied, stager):
                if future.done():
                    future.result()
        finally:
            for task in (*tasks, stager):
                task.cancel()
            await asyncio.gather(*tasks, stager, return_exceptions=True)
            await self._stage()

    async def _empty(self, queue: deque[Photograph]) -> None:
        while queue:
            outcome = await self._deal_with(queue.popleft())
            _count(outcome)
            self._unstaged.append(outcome)
            if len(self._unstaged) >= STAGE_EVERY_PHOTOGRAPHS:
                await self._stage()

    async def _deal_with(self, photograph: Photograph) -> Prepared | Reject:
        stage_name = "fetch" if is_fetched(photograph) else "read"
        try:
            if is_fetched(photograph):
                return await self._fetch(photograph)
            return await self._in(self._readers, self._read_and_prepare, photograph)
        except Rejection as rejection:
            check_seen(photograph)
            attempts = rejection.attempts if isinstance(rejection, FetchError) else 1
            return photograph.reject(stage_name, rejection.reason, rejection.message, attempts)
        except Exception as error:  # a fault of this program, which must not stop the other photographs
            return internal_reject(photograph, stage_name, error)

    async def _fetch(self, photograph: Photograph) -> Prepared | Reject:
        """Fetches a photograph; if it is a page with a picture's name, fetches the picture that the page is about."""

        async def use(file: Fetched) -> Prepared | Reject | str:
            if is_page(file):
                return await self._in(self._decoders, picture_of, file)
            return await self._prepare(photograph, file)

        outcome = await self._fetcher.fetch(photograph.url, use)
        if isinstance(outcome, str):
            outcome = await self._fetcher.fetch(outcome, lambda file: self._prepare(photograph, file))
        return outcome

    async def _prepare(self, photograph: Photograph, file: Fetched) -> Prepared | Reject:
        PHOTOGRAPHS_DONE.add(len(file.content), "bytes")
        arguments = (photograph, file.content, file.attempts, self._preparation, self._memory.pictures)
        return await self._in(self._decoders, prepare_photograph, *arguments)

    def _read_and_prepare(self, photograph: Photograph) -> Prepared | Reject:
        """Reads in a reader thread; leaves decoding to a decoder thread, of which there are as many as cores."""
        try:
            check_scheme(photograph.piece.url if photograph.piece else photograph.source)
        except NotAllowedError as error:
            raise Rejection("not_allowed", str(error)) from None
        with ExitStack() as held:
            content, attempts = read_photograph(photograph, self._memory.files, held)
            PHOTOGRAPHS_DONE.add(len(content), "bytes")
            arguments = (photograph, content, attempts, self._preparation, self._memory.pictures)
            return self._decoders.submit(prepare_photograph, *arguments).result()

    async def _stage_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(STAGE_EVERY_S)
            await self._stage()

    async def _stage(self) -> None:
        async with self._staging:
            batch, self._unstaged = self._unstaged, []
            if batch:
                self._staged += await self._in(self._writer, stage, self._out, batch)

    async def _in(self, pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def is_fetched(photograph: Photograph) -> bool:
    """Returns whether a photograph is requested from a web server, rather than read from a file system."""
    return photograph.piece is None and is_web(photograph.source)


def check_seen(photograph: Photograph) -> None:
    """Raises InputError if a local photograph's folder does not exist here.

    The process that listed the photograph saw it. A worker that does not must not reject it.
    """
    url = photograph.piece.url if photograph.piece else photograph.url
    if is_fetched(photograph) or scheme_of(url) not in LOCAL:
        return
    folder = os.path.dirname(filesystem(url)[1])
    if not os.path.isdir(folder):
        raise InputError(f"worker {socket.gethostname()} does not see the folder {folder}: mount it on all workers")


def web_host(photograph: Photograph) -> str:
    """Returns the host that a photograph is fetched from; an empty string if no host is asked."""
    return host_key(photograph.source) if is_fetched(photograph) else ""


def _count(outcome: Prepared | StagedSample | Reject) -> None:
    PHOTOGRAPHS_DONE.add()
    PHOTOGRAPHS_DONE.add(1, outcome.reason if isinstance(outcome, Reject) else "kept")
