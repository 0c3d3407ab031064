import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checks import check_seed
from model.errors import InputError
from model.geometry import LIMIT
from model.world.fields import journey_jitter, journey_z_g, philox, z_g_samples, z_g_vector, z_l_field, z_n_fields

ALL = 0xFFFFFFFF
FARTHEST = 2**31 - 1

seeds = st.integers(0, 2**64 - 1)
positions = st.integers(-FARTHEST, FARTHEST - 400)


def philox_of_random123(counter, key):
    """Computes Philox 4×32-10 on plain integers, written from the paper."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(q >> 32) ^ c[1] ^ k[0], q & ALL, (p >> 32) ^ c[3] ^ k[1], p & ALL]
        k = [(k[0] + 0x9E3779B9) & ALL, (k[1] + 0xBB67AE85) & ALL]
    return c


def normal(seed, counter, index):
    """Returns normal number 0 to 3 of a counter of signed words, in float64."""
    words = philox_of_random123([word & ALL for word in counter], (seed & ALL, seed >> 32))
    u, v = (((word >> 8) + 0.5) / 2**24 for word in words[index // 2 * 2 :][:2])
    return math.sqrt(-2 * math.log(u)) * (math.sin if index % 2 else math.cos)(2 * math.pi * v)


def z_l(seed, row, column, channel):
    return normal(seed, (column, row, 1, channel >> 2), channel & 3)


def z_n(seed, layer, row, column):
    return normal(seed, (column >> 2, row, 16 + layer, 0), column & 3)


def z_g(seed, index):
    return normal(seed, (0, 0, 2, index >> 2), index & 3)


@given(seeds, positions, positions)
def test_a_journey_has_counters_of_its_own(seed, row, column):
    words = philox_of_random123([column & ALL, row & ALL, 3, 0], (seed & ALL, seed >> 32))
    assert journey_jitter(seed, row, column) == (words[1] >> 8, words[0] >> 8)
    expected = [normal(seed, (column, row, 5, index >> 2), index & 3) for index in range(6)]
    assert journey_z_g(seed, row, column, 6)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_samples_of_z_g_have_counters_of_their_own():
    expected = [normal(0, (sample, 0, 4, index >> 2), index & 3) for sample in range(3) for index in range(6)]
    assert z_g_samples(3, 6).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def z_l_at(seed, row, column, channel):
    return z_l_field(seed, (row, row), (column, column), channel + 1)[0, channel, 0, 0].item()


def z_n_at(seed, layer, row, column):
    return z_n_field(seed, layer, (row, row), (column, column)).item()


def z_n_field(seed, layer, rows, columns):
    """Returns the noise of one layer alone."""
    (field,) = z_n_fields(seed, [(layer, rows, columns)])
    return field


def window_from(low, n):
    return low, low + n - 1


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ALL, ALL, ALL, ALL), (ALL, ALL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    seed = key[0] + (key[1] << 32)
    assert [word.item() for word in philox([torch.tensor(word) for word in counter], seed)] == list(words)
    assert philox_of_random123(counter, key) == list(words)


@given(st.lists(st.integers(0, ALL), min_size=4, max_size=4), seeds)
def test_philox_agrees_with_plain_integers_everywhere(counter, seed):
    words = [word.item() for word in philox([torch.tensor(word) for word in counter], seed)]
    assert words == philox_of_random123(counter, (seed & ALL, seed >> 32))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ((0, 0, 0, 0), 1.0675901496),
        ((7, 3, 5, 1), -1.1063579514),
        ((7, -1, -1, 6), 0.7325904285),
        ((2**64 - 1, -FARTHEST, FARTHEST, 255), 1.3216696287),
    ],
)
def test_z_l_has_its_golden_values(at, value):
    assert z_l_at(*at) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ((0, 0, 0, 0), -0.4634676846),
        ((7, 3, 2, 9), -0.2747388219),
        ((7, 7, -1, -1), -0.4177454846),
        ((2**64 - 1, 0, FARTHEST, -FARTHEST), 1.2622092941),
    ],
)
def test_z_n_has_its_golden_values(at, value):
    assert z_n_at(*at) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("seed", "index", "value"),
    [(0, 0, -0.6272284731), (7, 1, -0.2785640959), (7, 511, -1.8389351563), (2**64 - 1, 2, 0.9571255249)],
)
def test_z_g_has_its_golden_values(seed, index, value):
    assert z_g_vector(seed, 512)[0, index].item() == pytest.approx(value, abs=1e-6)


@settings(max_examples=50)
@given(seeds, positions, positions, st.integers(0, 30))
def test_z_l_follows_the_scheme_everywhere(seed, row, column, channel):
    field = z_l_field(seed, window_from(row, 2), window_from(column, 3), channel + 1)
    assert field[0, channel, 1, 2].item() == pytest.approx(z_l(seed, row + 1, column + 2, channel), abs=4e-6)


@settings(max_examples=50)
@given(seeds, st.integers(0, 19), positions, positions)
def test_z_n_follows_the_scheme_everywhere(seed, layer, row, column):
    field = z_n_field(seed, layer, window_from(row, 2), window_from(column, 6))
    expected = [z_n(seed, layer, row + 1, column + n) for n in range(6)]
    assert field[0, 0, 1].tolist() == pytest.approx(expected, abs=4e-6)


@settings(max_examples=50)
@given(seeds, st.integers(1, 70))
def test_z_g_follows_the_scheme_and_a_longer_one_begins_with_a_shorter_one(seed, length):
    vector = z_g_vector(seed, length)
    assert vector.shape == (1, length)
    assert vector[0].tolist() == pytest.approx([z_g(seed, n) for n in range(length)], abs=4e-6)
    assert torch.equal(z_g_vector(seed, length + 5)[:, :length], vector)


@st.composite
def nested_windows(draw):
    """Draws a window anywhere in the world, and one inside it."""
    size = draw(st.integers(1, 40))
    low = draw(positions | st.integers(-60, 20) | st.just(FARTHEST - 400) | st.just(-FARTHEST))
    start = draw(st.integers(0, size - 1))
    end = draw(st.integers(start, size - 1))
    return window_from(low, size), (low + start, low + end), slice(start, end + 1)


@given(seeds, nested_windows(), nested_windows(), st.integers(1, 9))
def test_any_part_of_z_l_is_the_same_bit_for_bit_when_computed_alone(seed, rows, columns, channels):
    whole = z_l_field(seed, rows[0], columns[0], channels)
    alone = z_l_field(seed, rows[1], columns[1], channels)
    assert whole.shape == (1, channels, rows[0][1] - rows[0][0] + 1, columns[0][1] - columns[0][0] + 1)
    assert torch.equal(whole[:, :, rows[2], columns[2]], alone)
    assert torch.equal(z_l_field(seed, rows[1], columns[1], channels + 3)[:, :channels], alone)


@given(seeds, st.integers(0, 19), nested_windows(), nested_windows())
def test_any_part_of_z_n_is_the_same_bit_for_bit_when_computed_alone(seed, layer, rows, columns):
    whole = z_n_field(seed, layer, rows[0], columns[0])
    assert whole.shape == (1, 1, rows[0][1] - rows[0][0] + 1, columns[0][1] - columns[0][0] + 1)
    alone = z_n_field(seed, layer, rows[1], columns[1])
    assert torch.equal(whole[:, :, rows[2], columns[2]], alone)


@given(
    seeds, st.dictionaries(st.integers(0, 19), st.tuples(nested_windows(), nested_windows()), min_size=1, max_size=8)
)
def test_the_noise_of_a_layer_is_the_same_bit_for_bit_whichever_layers_are_computed_with_it(seed, windows):
    wholes = [(layer, rows[0], columns[0]) for layer, (rows, columns) in windows.items()]
    for window, field in zip(wholes, z_n_fields(seed, wholes), strict=True):
        assert torch.equal(field, z_n_field(seed, *window))


FIELDS = {
    "z_l": lambda seed, low: z_l_field(seed, window_from(low, 64), window_from(low, 64), 64).flatten(),
    "z_n": lambda seed, low: z_n_field(seed, 3, window_from(low, 512), window_from(low, 512)).flatten(),
    "z_g": lambda seed, low: torch.cat([z_g_vector(seed + n, 512)[0] for n in range(512)]),
}


@pytest.mark.parametrize("low", [-32, 10**9, -FARTHEST, FARTHEST - 600])
@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_standard_normal(name, low):
    """Mean, variance, skewness, kurtosis and quantiles of 2^18 numbers are within five standard errors."""
    x = FIELDS[name](11, low).double()
    error = 5 / math.sqrt(len(x))
    assert len(x) == 2**18
    assert torch.isfinite(x).all()
    assert abs(x.mean()) < error
    assert abs(x.square().mean() - 1) < error * math.sqrt(2)
    assert abs(x.pow(3).mean()) < error * math.sqrt(15)
    assert abs(x.pow(4).mean() - 3) < error * math.sqrt(96)
    for quantile in (-3.0, -2.0, -1.0, 0.0, 0.5, 1.5, 2.5):
        expected = 0.5 * (1 + math.erf(quantile / math.sqrt(2)))
        assert abs((x < quantile).double().mean() - expected) < error * math.sqrt(expected * (1 - expected))


def correlation(x, y):
    """Returns the correlation in standard errors, for independent numbers."""
    x, y = x.flatten().double(), y.flatten().double()
    return abs((x * y).mean() / (x.std() * y.std())) * math.sqrt(len(x))


def mirrored(x):
    """Yields a field and its mirror images, each pair of values taken once."""
    half = x.shape[-1] // 2
    images = (x.transpose(2, 3)[:, :, :half, half:], x.flip(2)[:, :, :half, half:], x.flip(3)[:, :, :half, half:])
    return [(x[:, :, :half, half:], image) for image in images]


@pytest.mark.parametrize("low", [-100, 10**9, FARTHEST - 300])
def test_z_l_is_independent_between_positions_channels_and_seeds(low):
    window = window_from(low, 200)
    x = z_l_field(5, window, window, 12)
    pairs = [(x[..., n:], x[..., :-n]) for n in (1, 2, 4, 16, 128)]
    pairs += [(x[:, :, n:], x[:, :, :-n]) for n in (1, 2, 4, 16, 128)]
    pairs += [(x[:, n:], x[:, :-n]) for n in (1, 2, 3, 4, 8)]
    pairs += mirrored(x)
    pairs += [(x, z_l_field(seed, window, window, 12)) for seed in (4, 6, 5 + 2**32, 5 + 2**63)]
    assert max(correlation(*pair) for pair in pairs) < 5.5
    assert max(correlation(a.square() - 1, b.square() - 1) for a, b in pairs) < 5.5


@pytest.mark.parametrize("low", [-100, 10**9, FARTHEST - 300])
def test_z_n_is_independent_between_positions_layers_and_seeds_and_of_z_l(low):
    window = window_from(low, 256)
    x = z_n_field(5, 2, window, window)
    pairs = [(x[..., n:], x[..., :-n]) for n in (1, 2, 3, 4, 8, 64)]
    pairs += [(x[:, :, n:], x[:, :, :-n]) for n in (1, 2, 4, 64)]
    pairs += mirrored(x)
    pairs += [(x, z_n_field(5, layer, window, window)) for layer in (0, 1, 3, 7, 19)]
    pairs += [(x, z_n_field(seed, 2, window, window)) for seed in (4, 6, 5 + 2**32)]
    pairs += [(x, channel) for channel in z_l_field(5, window, window, 4)[0]]
    assert max(correlation(*pair) for pair in pairs) < 5.5
    assert max(correlation(a.square() - 1, b.square() - 1) for a, b in pairs) < 5.5


def test_z_g_of_neighbouring_seeds_are_independent():
    x = torch.cat([z_g_vector(seed, 512) for seed in range(300)])
    assert max(correlation(x[n:], x[:-n]) for n in (1, 2, 16)) < 5.5
    assert correlation(x[:, 1:], x[:, :-1]) < 5.5


def test_no_number_repeats_a_row_or_column_further_on():
    """Rows and columns, low and high words, and positive and negative positions are all distinguished."""
    windows = [window_from(low, 3) for low in (0, 2**16, 2**30, -(2**16), -(2**30), -3)]
    fields = [z_l_field(1, rows, columns, 4) for rows in windows for columns in windows]
    fields = torch.cat(fields).flatten(1)
    distances = torch.cdist(fields, fields) + 100 * torch.eye(len(fields))
    assert distances.min() > 1


@pytest.mark.parametrize("seed", [-1, 2**64, -(2**63)])
def test_a_seed_that_is_no_key_is_refused(seed):
    with pytest.raises(InputError, match=str(seed)):
        check_seed(seed)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, 2**64 - 1])
def test_every_seed_of_64_bits_is_taken(seed):
    check_seed(seed)
    assert torch.isfinite(z_g_vector(seed, 8)).all()


def test_all_positions_of_the_world_fit_into_signed_words_with_their_margins():
    assert LIMIT + 2**15 < 2**31
