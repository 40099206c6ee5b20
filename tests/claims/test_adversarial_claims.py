"""The numbers behind the claims about adversarial networks: verdicts of made-up numbers, the value of the game."""

import math

import pytest
import torch

from dlx.claims.codes import Codes
from dlx.claims.dcgan_recipe import TITLES, DCGANRecipe
from dlx.claims.gan_game import GANGame, densities, divergence, game_value, least_value
from dlx.claims.minimax_or_not import MinimaxOrNot
from dlx.claims.mode_collapse import ModeCollapse


def test_the_divergence_is_0_of_equals_and_ln_2_of_what_never_meets():
    assert divergence(*densities(0.0)) == pytest.approx(0, abs=1e-12)
    assert divergence(*densities(9.0)) == pytest.approx(math.log(2), abs=1e-3)
    assert least_value(0.0) == pytest.approx(-math.log(4))


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_the_value_at_p_over_p_plus_q_is_the_theorys_and_all_others_are_below(distance):
    x_N, p_N, q_N = densities(distance)
    best_N = p_N.log() - q_N.log()
    assert game_value(x_N, p_N, q_N, best_N) == pytest.approx(least_value(distance), abs=1e-9)
    for other_N in (best_N + 0.3, 0.5 * best_N - 0.1, torch.zeros_like(best_N) + 0.2):
        assert game_value(x_N, p_N, q_N, other_N) < least_value(distance)


def game(value, error=0.01):
    return {"value": value, "theory": -1.38 if value < -1.3 else -0.7, "error": error}


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [
        (game(-1.386), game(-0.71), True),
        (game(-1.386), game(-0.75), False),
        (game(-1.386), game(-0.71, 0.05), False),
    ],
)
def test_the_game_must_be_worth_what_the_theory_says(first, second, held):
    assert GANGame(distances=(0.0, 2.0)).verdict({"games": {"0": first, "2": second}}).held is held


@pytest.mark.parametrize(("minimax", "held"), [(0.01, True), (0.6, False)])
def test_the_gradient_of_minimax_must_be_gone_where_the_discriminator_is_sure(minimax, held):
    found = {"turns": [0, 300], "D": [0.5, 0.01], "minimax": [1.0, minimax], "non_saturating": [1.0, 1.0]}
    ends = {loss: {"modes": [1.0, 1.0], "quality": [0.9, 0.8]} for loss in ("minimax", "non_saturating")}
    assert MinimaxOrNot().verdict({"lead": found, "ends": ends}).held is held


@pytest.mark.parametrize(("plain", "steady", "held"), [(0.8, 1.0, True), (1.0, 1.0, False), (0.8, 0.7, False)])
def test_a_gan_must_leave_out_modes_that_the_other_finds(plain, steady, held):
    modes = {"GAN-ring": 1.0, "WGAN-GP-ring": 1.0, "GAN-grid": plain, "WGAN-GP-grid": steady}
    measured = {name: {"modes": [share], "quality": [0.9]} for name, share in modes.items()}
    verdict = ModeCollapse(seeds=1).verdict(measured)
    assert verdict.held is held
    assert f"GAN, grid: {25 * plain:.1f} of 25 modes" in verdict.line


@pytest.mark.parametrize(
    ("without", "given", "purity", "held"),
    [(0.1, 2.29, 0.8, True), (1.0, 2.29, 0.8, False), (0.1, 1.5, 0.8, False), (0.1, 2.29, 0.2, False)],
)
def test_only_the_bound_may_make_the_code_known(without, given, purity, held):
    measured = {
        "read": 0.99, "entropy": math.log(10),
        "0": {"information": [without], "purity": [0.3]}, "1": {"information": [given], "purity": [purity]},
    }  # fmt: skip
    assert Codes(seeds=1).verdict(measured).held is held


@pytest.mark.parametrize(("whole", "held"), [(1.0, True), (3.0, False)])
def test_the_whole_recipe_must_be_the_nearest_to_the_data(whole, held):
    measured = {name: {"frechet": [whole if name == "dcgan" else 2.0], "floor": 0.5} for name in TITLES}
    assert DCGANRecipe(seeds=1).verdict(measured).held is held


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: GANGame(distances=(1.0, 2.0)), "distances must be 0 and then rising"),
        (lambda: GANGame(distances=(0.0, 9.0)), "distances must be in"),
        (lambda: GANGame(steps=0), "steps must be at least 1"),
        (lambda: MinimaxOrNot(lead=0), "lead must be at least 2"),
        (lambda: MinimaxOrNot(seeds=0), "seeds must be at least 1"),
        (lambda: ModeCollapse(seeds=0), "seeds must be at least 1"),
        (lambda: Codes(weight=0.0), "weight must be above 0"),
        (lambda: Codes(samples=1), "samples must be at least 2"),
        (lambda: DCGANRecipe(width=0), "width must be at least 1"),
    ],
)
def test_a_value_out_of_range_is_named(make, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        make()
