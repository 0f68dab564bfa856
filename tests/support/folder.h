/* folder — a temporary folder for a test, as cmocka's state. */
#pragma once

/* *state becomes the folder's path. 0, or -1 when there is none to be had. */
int folder_setup(void **state);
/* Removes it with all that is in it. */
int folder_teardown(void **state);
