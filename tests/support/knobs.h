/* knobs — the environment that the fake engine (tests/fake/engine.c) listens to. */
#pragma once

/* Unsets whatever begins with DIFFUSED_FAKE_. */
void knobs_clear(void);
