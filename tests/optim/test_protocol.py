"""The protocol that all methods share: what a step reports."""

import numpy as np
from cases import chain
from test_first_order import START, C, quadratic

import minigrad as mg
import optim


def test_the_loss_may_be_read_late():
    for f in (chain(), chain(l2=0.1), quadratic(C, START)):
        before = float(f.value)
        g = f.at(f.params.vector.copy())  # nothing is computed at this one yet
        method = optim.SGD(0.1)
        state = method.init(g.params)
        infos = [method.step(g, state) for _ in range(3)]
        assert float(infos[0].loss) == before and infos[0].loss is infos[0].loss
        assert before > float(infos[1].loss) > float(infos[2].loss)


def test_a_late_loss_of_an_output_that_is_a_view_of_theta():
    params = mg.Params(z=np.ones((2, 3)))
    f = mg.Objective(lambda p, x: p["z"], mg.losses.softmax_cross_entropy, params, np.ones((2, 1)), np.array([0, 2]))
    before = float(mg.Objective(f.net, f.loss, params.copy(), np.ones((2, 1)), np.array([0, 2])).value)
    method = optim.SGD(0.5)
    assert float(method.step(f, method.init(params)).loss) == before
