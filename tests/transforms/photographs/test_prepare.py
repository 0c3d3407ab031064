import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from model.errors import InputError
from transforms.photographs.prepare import Preparation, Prepared, prepare_photograph
from transforms.training_set.records import Photograph, Reject


def photograph(width=800, height=400, **options):
    """Returns a JPEG's bytes: colours at several scales."""
    rng = np.random.default_rng(0)
    levels = sum(
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, 2 * n, 3), np.uint8)).resize((width, height)), float) / n
        for n in (3, 9, 27)
    )
    buffer = io.BytesIO()
    Image.fromarray((levels * 2).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def prepare(content, **options):
    return prepare_photograph(Photograph("a.jpg", "CC0-1.0", "Å", "Lake"), content, 1, Preparation(**options))


def opened(prepared):
    assert isinstance(prepared, Prepared), prepared
    image = Image.open(io.BytesIO(prepared.image))
    assert image.size == (prepared.sample.stored_width_px, prepared.sample.stored_height_px)
    return image


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_what_is_stored_has_the_format_asked_for(suffix, kind):
    image = opened(prepare(photograph(), suffix=suffix))
    assert (image.format, image.mode, image.size) == (kind, "RGB", (394, 197))


def test_a_higher_quality_takes_more_bytes():
    sizes = [len(prepare(photograph(), quality=quality).image) for quality in (30, 80, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_the_papers_own_step_goes_through_128_pixels():
    """A picture from 128 px has no finer detail, and Pillow's two steps give the same result."""
    direct = np.asarray(opened(prepare(photograph(), square=True, suffix="png")), dtype=float)
    stepped = np.asarray(opened(prepare(photograph(), square=True, suffix="png", via_size_px=128)), dtype=float)
    expected = Image.open(io.BytesIO(photograph())).crop((200, 0, 600, 400))
    for size in (128, 197):
        expected = expected.resize((size, size), Image.Resampling.LANCZOS)
    assert np.abs(stepped - np.asarray(expected)).mean() < 1
    assert np.abs(np.diff(stepped, axis=1)).mean() < np.abs(np.diff(direct, axis=1)).mean()


def test_a_webp_is_no_longer_than_a_webp_can_be():
    wide = prepare(photograph(17_000, 102), full_height_px=102, suffix="webp", max_aspect=1000.0, content_filters=False)
    assert opened(wide).size == (16_383, 102)


def test_a_profile_of_srgb_or_a_broken_one_changes_nothing():
    plain = np.asarray(opened(prepare(photograph(), suffix="png")), dtype=float)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = np.asarray(opened(prepare(photograph(icc_profile=srgb), suffix="png")), dtype=float)
    broken = np.asarray(opened(prepare(photograph(icc_profile=b"x" * 200), suffix="png")), dtype=float)
    assert np.abs(plain - same).max() == 0
    assert np.abs(plain - broken).max() == 0


def test_what_list_and_file_say_is_in_the_sample():
    sample = prepare(photograph()).sample
    assert (sample.licence, sample.author, sample.title) == ("CC0-1.0", "Å", "Lake")
    assert (sample.original_width_px, sample.original_height_px) == (800, 400)


@pytest.mark.parametrize(
    ("content", "options", "stage", "reason"),
    [
        (b"", {}, "decode", "empty"),
        (photograph()[:2000], {}, "decode", "truncated"),
        (photograph(), {"min_side_px": 500}, "frame", "too_small"),
        (photograph(), {"max_aspect": 1.9}, "frame", "aspect"),
        (b"P5 300 300 255 " + b"\0" * 90_000, {}, "filter", "dark"),
    ],
)
def test_what_is_no_use_is_a_reject_with_all_that_is_known(content, options, stage, reason):
    reject = prepare(content, **options)
    assert isinstance(reject, Reject)
    assert (reject.stage, reject.reason, reject.licence, reject.title) == (stage, reason, "CC0-1.0", "Lake")
    assert reject.photograph() == Photograph("a.jpg", "CC0-1.0", "Å", "Lake")


def test_filters_can_be_left_out():
    assert isinstance(prepare(b"P5 300 300 255 " + b"\0" * 90_000, content_filters=False), Prepared)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suffix": "bmp"}, "--format bmp is unknown: give jpg, webp, png"),
        ({"quality": 0}, "--quality 0 is out of range"),
        ({"via_size_px": 0}, "--via-size 0 is out of range"),
        ({"min_side_px": 0}, "--min-side 0 is too small"),
        ({"max_aspect": 0.5}, "--max-aspect 0.5 is too small"),
        ({"suffix": "webp", "full_height_px": 17_000}, "--full-size 17000 is out of range: give from .* to 16383"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Preparation(**options)
