#include "daemon/error.h"

#include <errno.h>
#include <string.h>

#include "vk/base/cleanup.h"

static const struct {
    int err;
    const char *word;
} words[] = {
    {-EINVAL, "InvalidArgument"}, {-EILSEQ, "InvalidArgument"}, {-E2BIG, "PromptTooLong"},
    {-EFBIG, "TooLarge"},         {-ENOBUFS, "QueueFull"},      {-EDQUOT, "QuotaExceeded"},
    {-ENOENT, "NotFound"},        {-EPERM, "NotOwner"},         {-EBUSY, "NotReady"},
    {-ECANCELED, "Cancelled"},    {-ETIME, "DeadlineExceeded"}, {-EKEYREJECTED, "PromptRefused"},
    {-ENOMEM, "OutOfMemory"},     {-EIO, "DeviceLost"},         {-ECONNRESET, "WorkerCrashed"},
    {-ENOEXEC, "ModelInvalid"},   {-ENOSPC, "SpoolFull"},
};

const char *error_to_word(int err)
{
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (words[i].err == err)
            return words[i].word;
    return "Failed";
}

int error_from_word(const char *word)
{
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strcmp(words[i].word, word) == 0)
            return words[i].err;
    return -EPROTO;
}
