/* vulkan_faults — a Vulkan whose calls fail when a test says so.
 *
 * A program that refers to anything here gets its vkGetInstanceProcAddr from here: the engine, as
 * it is, fills its table of entry points with wrappers. Each wrapper of a call that can fail
 * counts, and may fail instead of calling the driver; each that makes or destroys an object keeps
 * the books. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum vulkan_fault {
    VULKAN_OUT_OF_HOST_MEMORY,
    VULKAN_OUT_OF_DEVICE_MEMORY,
    VULKAN_DEVICE_LOST, /* only at calls that may say so; after it they all do, until armed anew */
    VULKAN_FAULT_COUNT,
};

struct vulkan_fault_plan {
    uint64_t nth; /* the call to fail, counted from 1; 0: none */
    enum vulkan_fault fault;
    bool sticky; /* and every one after it */
};

/* Device and pipelines take a second to make and a trial only needs their calls: from now on the
 * driver's outlive the engine's, and the next engine gets the same ones. false: until now. */
void vulkan_faults_keep_device(bool keep);

/* Begins to count anew; the device is well again. */
void vulkan_faults_arm(const struct vulkan_fault_plan *plan);
void vulkan_faults_disarm(void);

/* Calls that the plan has looked at since arming, and the name of each, counted from 1. */
uint64_t vulkan_faults_calls(void);
const char *vulkan_faults_name(uint64_t nth);
/* The call that the plan failed first; NULL when it never came to that. */
const char *vulkan_faults_hit(void);
/* Where every wrapper's process leaves the time (CLOCK_MONOTONIC, nanoseconds) of the first
 * vkQueueSubmit that finds a zero there; memory shared with another process. NULL: nowhere. */
void vulkan_faults_watch_submit(_Atomic uint64_t *first_nsec);

const char *vulkan_fault_to_string(enum vulkan_fault fault);

/* Objects and allocations that live now, all kinds together, and the first kind of which there is
 * one (NULL: none). */
int64_t vulkan_faults_alive(const char **ret_kind);
