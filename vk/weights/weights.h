/* weights — from Hugging Face tensor names to packed buffers on the device.
 *
 * Models declare what they want while they build their graph (weights_want, idempotent);
 * weights_load reads the files once, checks that every wanted tensor is there with the right shape
 * and that every tensor of the files is known, and packs on the GPU from staging blocks. A weight
 * may have several parts (q, k and v side by side in one GEMM). F16, F32 and BF16 files; rounded to
 * f16 to nearest even.
 *
 * PACK_GEMM   f16 [N/64][tap][K/8][j 8][lane 8] uvec4 of 8 consecutive k: what one workgroup reads
 *             lies in one run. N is padded to 64; lane l of a block of 64 columns owns columns
 *             8 l … 8 l + 7 (j counts them), so a lane's results are one uvec4. geglu: lane l owns
 *             value columns 4 l … 4 l + 3 (j = 0…3) and their gates (j = 4…7), a block covering 32
 *             outputs. k and n run through their layouts; padding is zero.
 *             Tensor shapes: [N, K] or [N, K, 1, 1] for one tap, else [N, K, taps_h, taps_w].
 * PACK_ROWS   f16 [N][pad8(K)], padding zero: embedding tables.
 * PACK_VECTOR f32 [padded N, a multiple of 64]: biases, norm gains; padding zero; with geglu in the
 *             order of the packed columns: 64 b + 8 l + j. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vk/base/cleanup.h"
#include "vk/base/fault.h"
#include "vk/base/sha256.h"
#include "vk/ops/layout.h"

struct gpu;
struct gpu_buffer;
struct weights;

enum pack_kind {
    PACK_GEMM,
    PACK_ROWS,
    PACK_VECTOR,
};

enum weights_component {
    WEIGHTS_TEXT_ENCODER,
    WEIGHTS_UNET,
    WEIGHTS_VAE,
    WEIGHTS_SAFETY, /* opened on its own: weights_open_safety() */
    WEIGHTS_TAESD,  /* likewise: weights_open_taesd() */
    WEIGHTS_COMPONENT_COUNT,
};

/* One tensor of a file, and where it goes. Strings are copied. */
struct weight_want {
    enum weights_component component;
    const char *name;     /* Hugging Face name */
    const char *old_name; /* another accepted name, or NULL */
    const char *key;      /* identity of the packed weight; NULL: name. Parts share a key */
    enum pack_kind pack;
    uint32_t n, k; /* logical rows (outputs) and columns (inputs); k = 1 for PACK_VECTOR */
    uint32_t taps_h, taps_w;          /* PACK_GEMM; 0 means 1 */
    struct layout n_layout, k_layout; /* count = n, k; all-zero means plain */
    bool geglu;                       /* the tensor's first n / 2 rows are values, the rest gates */
    uint32_t n_offset; /* first padded column of this part within the weight (not with geglu) */
    uint32_t n_total;  /* padded columns of the whole weight; 0: this part's own */
    /* The tensor's shape where it is not the usual one: as many elements, n rows first; 0: usual */
    uint32_t file_rank, file_dims[4];
};

/* Where a packed weight lies on the device. */
struct weight_place {
    uint32_t buffer;       /* 0…weights_buffer_count()-1 */
    uint64_t offset, size; /* bytes */
};

/* `model_directory` has text_encoder/, unet/, vae/ below it, or is a single-file directory
 * (single.h). Opens the files and checks their headers: <stem>.fp16.safetensors first, then
 * <stem>.safetensors (stem "model" for the text encoder, "diffusion_pytorch_model" for the others),
 * each also as the shards of an index (<stem>[.fp16].safetensors.index.json), then whichever other
 * variant is alone there. NULL directory: declarations only, no files. A directory with only
 * pickles (.bin, .ckpt) is refused by name. Errors name file, tensor, what was found and what was
 * wanted. */
int weights_open(const char *model_directory, struct weights **ret_weights, struct fault *f);
/* The safety checker alone, safety_checker/model[.fp16].safetensors: loaded and freed apart. */
int weights_open_safety(const char *model_directory, struct weights **ret_weights, struct fault *f);
/* The small VAE for previews, taesd/diffusion_pytorch_model[.fp16].safetensors, likewise. */
int weights_open_taesd(const char *model_directory, struct weights **ret_weights, struct fault *f);
struct weights *weights_free(struct weights *w);
DEFINE_FREEP(struct weights *, weights_free)

/* -EPERM + fault: a file that others than root and this user own or may write. */
int weights_check_owner(const struct weights *w, struct fault *f);

/* Declares a part. Before weights_load: registers or finds it; after: only finds it (-ENOENT +
 * fault when the model never declared it). A name wanted twice must be wanted alike (-EINVAL).
 * *ret_id names the packed weight: the same for all its parts. */
int weights_want(struct weights *w, const struct weight_want *want, uint32_t *ret_id,
                 struct fault *f);

/* A tensor that may be in the file and is of no use yet: shape unchecked (dims NULL) or checked
 * (rank dims; rank 2 also accepts trailing 1, 1); never uploaded. `required`: it must be there. */
struct weight_known {
    enum weights_component component;
    const char *name, *old_name;
    uint32_t rank;
    uint32_t dims[4];
    bool shape_checked, required;
};
int weights_know(struct weights *w, const struct weight_known *known, struct fault *f);

/* A small tensor [rows, columns] (columns 0: [rows]) read to the CPU and known from then on. Its
 * rows are what the file has, 1 … rows_max; *ret_values is malloc'd. -EINVAL + fault: missing, of
 * another shape, not finite. */
struct weight_table {
    enum weights_component component;
    const char *name;
    uint32_t columns, rows_max;
};
int weights_read_table(struct weights *w, const struct weight_table *table, float **ret_values,
                       uint32_t *ret_rows, struct fault *f);

/* Finds every declared tensor in its file, checks shapes and types, and that nothing else is there.
 * Needs no device; weights_load() begins with it. */
int weights_check_files(struct weights *w, struct fault *f);

/* Reads, checks and packs everything. A number that is NaN, infinite or too large for half
 * precision is refused (-EINVAL), with file, tensor and element. on_progress (may be NULL) gets 0…1
 * at least once a second. */
int weights_load(struct weights *w, struct gpu *gpu, void (*on_progress)(double, void *),
                 void *userdata, struct fault *f);

/* The device memory back; declarations and open files stay, for another weights_load(). No
 * recording that reads the weights may run afterwards. */
void weights_unload(struct weights *w);

/* The tensors that were declared, one by one, for who changes some of them on the device. The name
 * is Hugging Face's. */
struct weight_part {
    enum weights_component component;
    const char *name;
    bool is_matrix;          /* PACK_GEMM */
    uint32_t n, k;           /* rows and columns */
    uint32_t taps_h, taps_w; /* a row has k * taps_h * taps_w elements */
};
uint32_t weights_part_count(const struct weights *w);
struct weight_part weights_part(const struct weights *w, uint32_t index);

/* Changes rows first … first + rows - 1 of part `part`, f32 in the order of the file. Parts come in
 * the order of the files, each one's rows in theirs. < 0 + fault ends it. */
typedef int weights_edit_t(uint32_t part, uint32_t first, uint32_t rows, float *values,
                           void *userdata, struct fault *f);

/* Loaded weights packed anew, from the files: changed, or (edit NULL) bit by bit as weights_load()
 * left them. After an error any of the parts may be changed or not. -ESTALE: a file is another.
 */
struct weights_change {
    const uint32_t *parts; /* indices, each once */
    size_t count;
    weights_edit_t *edit;
    void *userdata;
};
int weights_repack(struct weights *w, struct gpu *gpu, const struct weights_change *change,
                   struct fault *f);

/* Bytes of a packed weight; known from its declaration. */
uint64_t weights_size(const struct weights *w, uint32_t id);
uint64_t weights_total_bytes(const struct weights *w);

/* Before weights_load a virtual place (as if all were in one buffer), so that graphs can be planned
 * and explained without loading. */
struct weight_place weights_place(const struct weights *w, uint32_t id);
uint32_t weights_buffer_count(const struct weights *w);
const struct gpu_buffer *weights_buffer(const struct weights *w, uint32_t index);

/* SHA-256 over the safetensors headers and file sizes, 64 hex digits; "" without files. */
const char *weights_hash(const struct weights *w);

/* Of what lies on the device, bit by bit, computed there; the same on every sound device. After
 * weights_load. Allocates nothing. */
int weights_sum(struct weights *w, struct gpu *gpu, uint8_t ret_digest[SHA256_SIZE],
                struct fault *f);

/* Of what weights_load read from the files: tells models apart whose headers are alike. No
 * cryptography: 64 bits a component. */
void weights_content(const struct weights *w, uint64_t ret_sums[WEIGHTS_COMPONENT_COUNT]);
