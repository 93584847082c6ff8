import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geojax.methods import view_prompts

table = jax.jit(view_prompts.interpolate_view_embeddings)
ROWS = jnp.radians(jnp.array([0.0, 30.0, 60.0, 85.0]))
COLUMNS = 8


def degrees(*values):
    return jnp.radians(jnp.asarray(values, jnp.float32))


def cut_words(limit):
    """A token a word and a comma, as of most tokenizers; letters beyond six of a word are more."""

    def tokens(text):
        return [w[i : i + 6] for w in text.replace(",", " ,").split() for i in range(0, len(w), 6)]

    return lambda texts: [" ".join(tokens(text)[limit:]) for text in texts]


NAMES = (", front view", ", side view, from above")


def test_a_prompt_that_fits_is_left_alone():
    assert view_prompts.shorten_prompt(cut_words(9), "a red mug", NAMES) == "a red mug"


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("a red mug that stands on its own", "a red mug"),  # the longer name takes six
        ("a red, round mug", "a red"),  # no comma is left before the suffix's
        ("an unpronounceable thing", "an"),  # not half of a word
        ("unpronounceableunpronounceable", "unpronounceableunp"),  # unless there is but one
    ],
)
def test_a_long_prompt_is_cut_and_never_the_name_of_the_view(prompt, kept):
    cut = cut_words(9)
    got = view_prompts.shorten_prompt(cut, prompt, NAMES)
    assert got == kept
    assert not any(cut([got + name for name in NAMES]))


def test_a_name_over_the_limit_is_refused():
    with pytest.raises(ValueError, match="leaves no room"):
        view_prompts.shorten_prompt(cut_words(6), "a red mug", NAMES)


@pytest.fixture(scope="module")
def embeddings():
    return jax.random.normal(jax.random.key(0), (4, COLUMNS, 2, 3))


def test_the_tables_own_views_are_its_entries(embeddings):
    row, column = np.divmod(np.arange(4 * COLUMNS), COLUMNS)
    azimuth = jnp.asarray(column * 2 * np.pi / COLUMNS, jnp.float32)
    for turn in (0.0, -2 * np.pi):
        got = table(embeddings, ROWS, azimuth + turn, ROWS[row])
        np.testing.assert_allclose(got, np.asarray(embeddings)[row, column], atol=1e-5)


def test_the_table_against_a_loop(embeddings, rng):
    values, rows = np.asarray(embeddings, np.float64), np.asarray(ROWS, np.float64)
    azimuth, elevation = rng.uniform(-7, 7, 32), rng.uniform(-0.3, 1.6, 32)
    got = table(
        embeddings, ROWS, jnp.asarray(azimuth, jnp.float32), jnp.asarray(elevation, jnp.float32)
    )
    for i in range(32):
        column = azimuth[i] % (2 * np.pi) / (2 * np.pi) * COLUMNS
        left, share = int(column), column - int(column)
        by_row = (1 - share) * values[:, left] + share * values[:, (left + 1) % COLUMNS]
        e = np.clip(elevation[i], rows[0], rows[-1])
        high = min(max(np.searchsorted(rows, e), 1), 3)
        up = (e - rows[high - 1]) / (rows[high] - rows[high - 1])
        np.testing.assert_allclose(
            got[i], (1 - up) * by_row[high - 1] + up * by_row[high], atol=1e-5
        )


def test_the_table_is_continuous_across_the_seam_and_clamped(embeddings):
    edge = jnp.asarray([np.pi - 1e-6, -np.pi + 1e-6, -1e-9, 0.0], jnp.float32)
    got = table(embeddings, ROWS, edge, jnp.full(4, 0.2))
    np.testing.assert_allclose(got[0], got[1], atol=1e-4)
    np.testing.assert_allclose(got[2], got[3], atol=1e-4)
    below, first = (table(embeddings, ROWS, edge, jnp.full(4, e)) for e in (-1.0, 0.0))
    np.testing.assert_array_equal(below, first)


def test_a_table_of_one_row(embeddings):
    got = view_prompts.interpolate_view_embeddings(
        embeddings[:1], ROWS[:1], degrees(45.0), degrees(70.0)
    )
    np.testing.assert_allclose(got[0], embeddings[0, 1], atol=1e-5)
