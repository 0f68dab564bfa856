/* version — the one place where the version stands. */
#pragma once

#define DIFFUSED_VERSION "0.1.0"
