"""Some shares of the photographs, fetched and prepared concurrently by one worker.

An event loop waits for servers and stores; as many threads as there are cores decode, for which Pillow releases the
interpreter's lock. Results are staged every few seconds, so a killed run loses no more than that.
"""

import asyncio
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import chain
from typing import Any, Final

from model.memory import return_freed_memory
from transforms.ingest.batches import Staged, read_staged, stage
from transforms.ingest.plan import is_fetched, read_share, web_host
from transforms.photographs.prepare import Preparation, Prepared, prepare_photograph, read_photograph
from transforms.sources.fetch import Fetched, Fetcher, FetchError
from transforms.sources.fetched_pages import is_page, picture_of
from transforms.sources.manners import Manners
from transforms.storage.files import filesystem
from transforms.storage.memory import DEFAULT_BYTES, process_memory
from transforms.storage.tally import Tally
from transforms.storage.urls import LOCAL, NotAllowedError, check_scheme, scheme_of
from transforms.training_set.records import Photograph, Reject, Rejection, internal_reject
from transforms.workers.sight import Sight, check

STAGE_EVERY_S: Final = 3.0
STAGE_EVERY_PHOTOGRAPHS: Final = 256
STORE_READERS: Final = 16

PHOTOGRAPHS_DONE = Tally("photographs")
"""The number of photographs that this process has finished, for the progress bar."""


def crawl(
    shares: Iterable[int],
    shares_of_files: int,
    out: str,
    preparation: Preparation,
    manners: Manners,
    memory_bytes: int = DEFAULT_BYTES,
    sight: Sight | None = None,
) -> None:
    """Processes and stages each photograph of some shares of the plan that has not been processed before.

    Args:
        shares: the numbers of the shares.
        shares_of_files: the number of shares that have files; these come first.
        out: the folder of the training set.
        preparation: the settings for converting photographs.
        manners: the limits for requests to servers.
        memory_bytes: the memory that this process may take in all.
        sight: what the process that submitted the job sees; None if that is this process.
    """
    shares = sorted(shares)
    of_files = [share for share in shares if share < shares_of_files]
    asyncio.run(_Crawl(out, preparation, manners, memory_bytes, sight).run(of_files, shares[len(of_files) :]))


_Task = tuple[int, Photograph]
"""A share, and a photograph of it that is to be processed."""


class _Crawl:
    """The state of a crawl, above all the outcomes that wait to be staged, by share."""

    def __init__(
        self, out: str, preparation: Preparation, manners: Manners, memory_bytes: int, sight: Sight | None
    ) -> None:
        self._out = out
        self._preparation = preparation
        self._manners = manners
        self._memory = process_memory(memory_bytes)
        self._sight = sight
        self._missing: set[str] = set()
        return_freed_memory()
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._unstaged: dict[int, list[Prepared | Reject]] = defaultdict(list)
        self._staging = asyncio.Lock()
        self._ended = asyncio.Event()

    async def run(self, of_files: list[int], of_hosts: list[int]) -> None:
        """Processes photographs, those of each host in turn, and those of different hosts concurrently."""
        with (
            ThreadPoolExecutor(self._cores) as self._decoders,
            ThreadPoolExecutor(STORE_READERS) as self._readers,
            ThreadPoolExecutor(1) as self._writer,
        ):
            async with Fetcher(self._manners, self._memory.files) as self._fetcher:
                await self._work(of_files, of_hosts)

    async def _work(self, of_files: list[int], of_hosts: list[int]) -> None:
        hosts: dict[str, deque[_Task]] = defaultdict(deque)
        for share, photograph in chain.from_iterable(map(self._left, of_hosts)):
            hosts[web_host(photograph)].append((share, photograph))
        files = chain.from_iterable(map(self._left, of_files))
        workers = [self._empty(files) for _ in range(STORE_READERS if of_files else 0)]
        for queue in hosts.values():
            workers += [self._empty(_drain(queue)) for _ in range(min(self._manners.host_connections, len(queue)))]
        tasks = [asyncio.create_task(worker) for worker in workers]
        stager = asyncio.create_task(self._stage_now_and_then())
        try:
            emptied: asyncio.Future[Any] = asyncio.gather(*tasks)
            await asyncio.wait([emptied, stager], return_when=asyncio.FIRST_COMPLETED)
            for future in (emptied, stager):
                if future.done():
                    future.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._ended.set()  # a cancelled stager might drop a batch that waits for the writer
            await stager
            await self._stage(1)

    def _left(self, share: int) -> Iterator[_Task]:
        """Yields the photographs of a share that are not done."""
        done: set[str] = set()
        for staged in read_staged(self._out, share):
            done |= staged.sources
            _count_staged(staged)
        for photograph in read_share(self._out, share):
            if photograph.source not in done:
                yield share, photograph

    async def _empty(self, queue: Iterator[_Task]) -> None:
        for share, photograph in queue:
            outcome = await self._deal_with(photograph)
            _count(outcome)
            self._unstaged[share].append(outcome)
            await self._stage(STAGE_EVERY_PHOTOGRAPHS)

    async def _deal_with(self, photograph: Photograph) -> Prepared | Reject:
        stage_name = "fetch" if is_fetched(photograph) else "read"
        try:
            if is_fetched(photograph):
                return await self._fetch(photograph)
            return await self._in(self._readers, self._read_and_prepare, photograph)
        except Rejection as rejection:
            self._check_sight(photograph)
            attempts = rejection.attempts if isinstance(rejection, FetchError) else 1
            return photograph.reject(stage_name, rejection.reason, rejection.message, attempts)
        except Exception as error:  # a fault of this program, which must not stop the other photographs
            return internal_reject(photograph, stage_name, error)

    def _check_sight(self, photograph: Photograph) -> None:
        """Raises InputError if a photograph's folder is missing because this worker does not see the job's files.

        If it sees them, the folder exists nowhere, as when a list names one that was removed.
        """
        url = photograph.piece.url if photograph.piece else photograph.url
        if self._sight is None or is_fetched(photograph) or scheme_of(url) not in LOCAL:
            return
        folder = os.path.dirname(filesystem(url)[1])
        if folder not in self._missing and not os.path.isdir(folder):
            check(self._sight)
            self._missing.add(folder)

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
        while not self._ended.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), STAGE_EVERY_S)
            await self._stage(1)

    async def _stage(self, least: int) -> None:
        """Stages the outcomes of each share that has at least this number."""
        if all(len(batch) < least for batch in self._unstaged.values()):
            return
        async with self._staging:
            for share in [share for share, batch in self._unstaged.items() if len(batch) >= least]:
                await self._in(self._writer, stage, self._out, share, self._unstaged.pop(share))

    async def _in(self, pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def _drain(queue: deque[_Task]) -> Iterator[_Task]:
    while queue:
        yield queue.popleft()


def _count(outcome: Prepared | Reject) -> None:
    PHOTOGRAPHS_DONE.add()
    PHOTOGRAPHS_DONE.add(1, outcome.reason if isinstance(outcome, Reject) else "kept")


def _count_staged(staged: Staged) -> None:
    PHOTOGRAPHS_DONE.add(len(staged.sources))
    PHOTOGRAPHS_DONE.add(len(staged.records), "kept")
    for reject in staged.rejects:
        PHOTOGRAPHS_DONE.add(1, reject.reason)
