"""The flags of ``infinitygan invert``."""

import sys
from typing import Annotated, Literal

import typer

from model.bundled import BUNDLED
from model.errors import InputError
from pipelines.terminal.flags import (
    Checkpoint,
    PhotographSeed,
    Quiet,
    Scale,
    Size,
    Steps,
    base_px,
    beam_flags,
    size_px,
    split_flags,
    whole_numbers,
)


def invert(
    context: typer.Context,
    photographs: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Photographs: files, folders and lists, as paths or URLs.")
    ],
    out: Annotated[
        str, typer.Option(help="The overlay to write, FILE.safetensors; a folder if there are several photographs.")
    ],
    checkpoint: Checkpoint = None,
    steps: Steps = 3000,
    size: Size = None,
    scale: Scale = 1,
    origin: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y", help="World pixel of the photograph's top left corner.", show_default="0,-height/2"
        ),
    ] = None,
    cyclic_width: Annotated[
        int | None,
        typer.Option(help="Width in pixels of the cyclic panorama it is meant for.", show_default="not cyclic"),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of Adam.")] = 0.1,
    pixel_weight: Annotated[float, typer.Option(help="Weight of the squared pixel difference.")] = 10.0,
    lpips_weight: Annotated[float, typer.Option(help="Weight of LPIPS.")] = 10.0,
    z_g_weight: Annotated[float, typer.Option(help="Weight of the prior on z_g.")] = 10.0,
    z_l_weight: Annotated[float, typer.Option(help="Weight of the prior on z_l.")] = 10.0,
    w_weight: Annotated[float, typer.Option(help="Weight of the prior on W+.")] = 0.01,
    noise_weight: Annotated[float, typer.Option(help="Weight of the noise's autocorrelation.")] = 1000.0,
    lpips: Annotated[Literal["alex"], typer.Option(hidden=True)] = "alex",  # accepted for older scripts
    tile: Annotated[
        int, typer.Option(help="Side in pixels of the tiles in which larger photographs are processed.")
    ] = 256,
    seed: PhotographSeed = 0,
    quiet: Quiet = False,
) -> None:
    """Finds the fields of the world that reproduce a photograph. Run again, it resumes where it stopped."""
    paths, flags = split_flags(photographs)
    beam_options = beam_flags(context, flags)
    from model.inversion import InversionConfig
    from model.world.scale import check_scale
    from pipelines.invert import invert_all, invert_many, overlay_paths
    from transforms.applications.inversions import INVERSIONS
    from transforms.applications.invert import SUFFIX, InversionJob, photographs_at
    from transforms.storage.files import check_folder, join

    config = InversionConfig(
        steps=steps,
        learning_rate=learning_rate,
        pixel_weight=pixel_weight,
        lpips_weight=lpips_weight,
        z_g_weight=z_g_weight,
        z_l_weight=z_l_weight,
        w_weight=w_weight,
        noise_weight=noise_weight,
        tile_px=tile,
        seed=seed,
    )
    check_scale(scale)
    x_px, y_px = whole_numbers("--origin", origin, 2, "0,-64") if origin else (0, None)
    cyclic_px = cyclic_width and base_px("--cyclic-width", cyclic_width, scale)
    single = out.endswith(SUFFIX)
    if not single:
        check_folder(out)
    found = photographs_at(paths)
    if single and len(found) > 1:
        raise InputError(f"--out {out} is one file for {len(found)} photographs; give a folder")
    outs = [out] if single else overlay_paths(found, out)
    jobs = [
        InversionJob(
            photograph=photograph,
            out=file,
            checkpoint=checkpoint or BUNDLED,
            config=config,
            size_px=size_px(size),
            x_px=base_px("--origin", x_px, scale),
            y_px=None if y_px is None else base_px("--origin", y_px, scale),
            cyclic_px=cyclic_px,
            scale=scale,
        )
        for photograph, file in zip(found, outs, strict=True)
    ]
    if single:
        (overlay,) = invert_all(jobs)
        fit = overlay.provenance
        print(f"{out}: PSNR {fit['psnr_db']:.2f} dB, LPIPS {fit['lpips']:.4f}", file=sys.stderr)
        return
    rows = invert_many(jobs, out, beam_options)
    failed = [row for row in rows if row.reason]
    for row in failed:
        print(f"{row.photograph}: {row.reason}", file=sys.stderr)
    print(
        f"{len(rows) - len(failed)} of {len(rows)} overlays are finished; {join(out, INVERSIONS)} lists them",
        file=sys.stderr,
    )
    if failed:
        raise typer.Exit(1)
