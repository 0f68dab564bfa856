"""Euler of diffusers 0.31.0, which cannot share a process with 0.6.0: a child behind pipes.

EulerScheduler(site) here; the child runs this file with `site` first on its path.
"""

import os
import pickle
import subprocess
import sys

KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")


class EulerScheduler:
    """The child's scheduler, with those methods of a 0.6.0 scheduler that sampling uses."""

    def __init__(self, site, **config):
        env = {**os.environ, "PYTHONPATH": site}
        self._child = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._call("new", {k: config[k] for k in KEYS})

    def _call(self, *what):
        pickle.dump(what, self._child.stdin)
        self._child.stdin.flush()
        return pickle.load(self._child.stdout)

    def set_timesteps(self, steps):
        import torch

        timesteps, sigma = self._call("set_timesteps", steps)
        self.timesteps, self.init_noise_sigma = torch.from_numpy(timesteps), sigma

    def scale_model_input(self, sample, t):
        import torch

        return torch.from_numpy(self._call("scale_model_input", sample.numpy(), t.numpy()))

    def step(self, e, t, sample):
        import torch

        prev = self._call("step", e.numpy(), t.numpy(), sample.numpy())
        return type("Output", (), {"prev_sample": torch.from_numpy(prev)})

    def close(self):
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()


def serve():
    import torch
    from diffusers import EulerDiscreteScheduler, __version__

    assert __version__ == "0.31.0", __version__
    torch.set_num_threads(1)
    out, scheduler = sys.stdout.buffer, None
    while True:
        try:
            verb, *args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if verb == "new":
            scheduler, answer = EulerDiscreteScheduler(**args[0]), None
        elif verb == "set_timesteps":
            scheduler.set_timesteps(args[0])
            answer = (scheduler.timesteps.numpy(), float(scheduler.init_noise_sigma))
        elif verb == "scale_model_input":
            answer = scheduler.scale_model_input(
                *[torch.from_numpy(a) if a.ndim else torch.tensor(a) for a in args]
            ).numpy()
        else:
            answer = scheduler.step(
                *[torch.from_numpy(a) if a.ndim else torch.tensor(a) for a in args]
            ).prev_sample.numpy()
        pickle.dump(answer, out)
        out.flush()


if __name__ == "__main__":
    serve()
