"""Shared fixtures: a tiny checkpoint, a world painted without a network, and a web server on loopback."""

import asyncio
import os
import threading
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in the processes that tests start

import pytest
import torch
from aiohttp import web
from hypothesis import HealthCheck, settings

from model.checkpoint import save_checkpoint
from model.config import PRESETS, DetailConfig
from model.networks.detail import DetailStage
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.world import Picture
from transforms.panoramas.patches import encode_patch
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import RenderRequest
from transforms.render.synthesize import patch
from transforms.training_set.records import FAULTS

# A busy machine takes its time; that is not a failure.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Limits torch to one thread: the networks here are too small to share out, and the other cores stay free."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_faults():
    """Clears a test's faults afterwards, because the run of another test would store them."""
    yield
    FAULTS.clear()


@pytest.fixture(scope="session")
def build():
    """Makes generators."""

    def make(config, seed=0):
        """Returns a generator at its random start, but with nonzero noise and biases, and pictures in [-1, 1]."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            generator = Generator(config)
            for name, parameter in generator.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.data.fill_(0.3).add_(0.2 * torch.rand(()))
                elif name.endswith(".bias") and "affine" not in name and "mapping" not in name:
                    parameter.data.normal_().mul_(0.2)
            for to_rgb in generator.texture.to_rgb:
                to_rgb.convolution.weight.data.mul_(0.2)
        return generator.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def tiny_stage():
    """Returns a small detail stage at its random start, but with strong noise, and with detail in its pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        stage = DetailStage(DetailConfig(channels=16, blocks=1, up_channels=(12, 8)))
        stage.to_rgb.weight.data.normal_().mul_(0.03)
        for name, parameter in stage.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.fill_(0.5)
    return stage.eval().requires_grad_(False)


def write_checkpoint(folder, generator):
    """Writes a new checkpoint file; returns its path."""
    path = folder / "tiny.safetensors"
    path.write_bytes(save_checkpoint(generator.state_dict(), generator.config, {"images": 0}, "CC0-1.0"))
    return str(path)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, build):
    """Returns the path of a checkpoint of the tiny network, with noise."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), build(PRESETS["tiny"]))


@pytest.fixture(scope="session")
def detailed_checkpoint(tmp_path_factory, build, tiny_stage):
    """Returns the path of a checkpoint of the tiny network, with a detail stage."""
    generator = build(PRESETS["tiny"])
    path = tmp_path_factory.mktemp("checkpoint") / "detailed.safetensors"
    path.write_bytes(save_checkpoint(generator.state_dict(), generator.config, {}, "CC0-1.0", tiny_stage))
    return str(path)


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory, build):
    """Returns the path of a checkpoint of the tiny network with other weights."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), build(PRESETS["tiny"], seed=1))


class PaintedWorld:
    """A world whose pixels tell their position. Like a real one, it computes a few more pixels than requested."""

    before, after = beyond = 3, 2

    def compute(self, rows, columns):
        rows, columns = ((low - self.before, high + self.after) for low, high in (rows, columns))
        y, x = torch.arange(rows[0], rows[1] + 1)[:, None], torch.arange(columns[0], columns[1] + 1)[None, :]
        levels = torch.stack([(x + 0 * y) % 251, (y + 0 * x) % 241, (7 * x + 13 * y) % 239])
        return Picture(levels / 127.5 - 1, rows, columns)

    def levels(self, plan):
        """Returns the panorama as uint8 [h,w,3]."""
        picture = self.compute(plan.request.rows, plan.request.columns)
        return quantise(picture.crop(plan.request.rows, plan.request.columns)).permute(1, 2, 0).numpy()

    def patches(self, shard):
        return [patch(self, shard.plan, index) for index in shard.indices]

    def samples(self, shard):
        return [encode_patch(shard.plan, patch) for patch in self.patches(shard)]


@pytest.fixture(scope="session")
def painted():
    return PaintedWorld()


@pytest.fixture(scope="session")
def plan_of():
    """Makes plans for the painted world, which needs no checkpoint."""

    def plan_of(width_px, height_px, tile_px=32, **fields):
        values = {"id": "p", "seed": 7, **fields}
        return Plan(RenderRequest(width_px=width_px, height_px=height_px, **values), "none", "0" * 64, tile_px)

    return plan_of


@pytest.fixture(scope="session")
def contents():
    """Reads a folder: the bytes of every file in it, by relative path."""

    def contents(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    return contents


class LocalServer:
    """A real web server on loopback, in a separate thread, that answers as its routes say.

    Attributes:
        routes: the answer for each path: bytes, a (status, headers, body) triple, or a coroutine function.
        log: the time and path of each request, in order.
        most_at_once: the largest number of requests that were answered at the same time.
    """

    def __init__(self):
        self.routes, self.log, self.most_at_once, self._now = {}, [], 0, 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.url = f"http://127.0.0.1:{self.port}"

    async def _start(self):
        self._runner = web.ServerRunner(web.Server(self._answer, handler_cancellation=True))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, shutdown_timeout=0)
        await site.start()
        return self._runner.addresses[0][1]

    async def _answer(self, request):
        self.log.append((time.monotonic(), request.path, request.headers.get("User-Agent")))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            answer = self.routes.get(request.path, (404, {}, b""))
            if callable(answer):
                answer = await answer(request)
            if isinstance(answer, bytes):
                answer = (200, {"Content-Type": "text/html" if answer[:1] == b"<" else "image/jpeg"}, answer)
            if isinstance(answer, tuple):
                status, headers, body = answer
                return web.Response(status=status, headers=headers, body=body)
            return answer
        finally:
            self._now -= 1

    def asked(self, path):
        """Returns the number of requests for a path."""
        return sum(entry[1] == path for entry in self.log)

    def close(self):
        """Stops the server, even if it is busy."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _stop(self):
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await self._runner.cleanup()

    @staticmethod
    async def stall(request):
        """Waits forever without answering."""
        await asyncio.sleep(600)

    @staticmethod
    async def trickle(request):
        """Sends a byte per second."""
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x")
            await asyncio.sleep(1)
        return response

    @staticmethod
    async def drop(request):
        """Hangs up."""
        request.transport.close()
        return b""

    @staticmethod
    async def cut(request):
        """Hangs up before the announced content has been sent."""
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        request.transport.close()
        return response

    @staticmethod
    async def endless(request):
        """Sends ten megabytes of unannounced length."""
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x" * 10_000)
        return response


@pytest.fixture
def web_server():
    server = LocalServer()
    yield server
    server.close()
