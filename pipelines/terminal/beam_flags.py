"""Beam's own flags: those known to Beam, or to the runner's job server, are passed on; anything else is refused."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from model.errors import InputError
from pipelines.terminal.flag_names import DETACH, unknown_flag
from pipelines.terminal.runners import DESCRIBED, JOB_SERVER_S, STARTED, runner_of, value_of, with_defaults


class OwnOptions(PipelineOptions):
    """The flags of a job that are ours, on any runner."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(DETACH, action="store_true")


def beam_options(arguments: Sequence[str], own: Sequence[str] = ()) -> PipelineOptions:
    """Returns the options of a pipeline from flags that are not the command's own.

    Args:
        arguments: the flags.
        own: the names of the command's own flags, which a misspelt one may resemble.

    Raises:
        InputError: neither Beam nor the runner's job server knows a flag, or its value is not accepted.
    """
    given, own = with_defaults(arguments), (*own, DETACH)
    parser = beam_parser()
    endpoint = value_of(given, "--job_endpoint")
    if runner_of(given) in DESCRIBED and endpoint and endpoint != "embed":
        add_described(parser, describe(endpoint, int(value_of(given, "--job_server_timeout") or JOB_SERVER_S)))
    if endpoint or runner_of(given) not in STARTED:
        check_known(parser, arguments, own)
    options = PipelineOptions(given)
    try:
        beam.Pipeline(options=options)
    except Exception as error:  # the exception depends on the runner
        raise InputError(f"Beam does not accept {' '.join(arguments)}: {error}") from None
    return options


def check_known(parser: argparse.ArgumentParser, arguments: Sequence[str], own: Sequence[str]) -> None:
    """Raises InputError for a flag that a parser does not know."""
    _, unknown = parser.parse_known_args(list(arguments))
    for flag in unknown:
        if flag.startswith("-"):
            raise unknown_flag(flag, [*own, *parser._option_string_actions])
    if unknown:
        raise InputError(f"{unknown[0]!r} is an unexpected argument; see --help")


def describe(endpoint: str, timeout_s: float) -> list[Any]:
    """Returns the flags that a job server describes.

    Raises:
        InputError: it does not answer.
    """
    try:
        with grpc.insecure_channel(endpoint) as channel:
            grpc.channel_ready_future(channel).result(timeout=timeout_s)
            server = beam_job_api_pb2_grpc.JobServiceStub(channel)
            request = beam_job_api_pb2.DescribePipelineOptionsRequest()
            return list(server.DescribePipelineOptions(request, timeout=timeout_s).options)
    except grpc.FutureTimeoutError:
        raise InputError(f"--job_endpoint {endpoint}: no job server has answered within {timeout_s:.0f} s") from None
    except grpc.RpcError as error:
        raise InputError(f"--job_endpoint {endpoint}: the job server does not answer: {error.details()}") from None


def add_described(parser: argparse.ArgumentParser, described: Sequence[Any]) -> None:
    """Adds the flags that a job server describes; Beam's own come first."""
    types = beam_job_api_pb2.PipelineOptionType
    for option in described:
        if f"--{option.name}" in parser._option_string_actions:
            continue
        how: dict[str, Any] = {}
        if option.type == types.BOOLEAN:
            how["action"] = "store_false" if option.default_value == "true" else "store_true"
        elif option.type == types.INTEGER:
            how["type"] = int
        elif option.type == types.ARRAY:
            how["action"] = "append"
        parser.add_argument(f"--{option.name}", **how)


class Parser(argparse.ArgumentParser):
    """Raises InputError with one line about a wrong value instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Overrides argparse's handler."""
        raise InputError(f"Beam does not accept this: {message}")


def beam_parser() -> Parser:
    """Returns a parser of the flags of all of Beam's option classes, which may overlap."""
    parser = Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for cls in PipelineOptions.__subclasses__():
        cls._add_argparse_args(parser)  # type: ignore[arg-type]
    return parser
