# Which kernels exist. Every .comp is built twice: KERNEL.texel reads its operands through texel buffers,
# KERNEL.ssbo through storage buffers. A row here adds a build of a source with further defines:
#     VARIANTS += name
#     VARIANT_name := source -DFLAG …
# The build writes gen/kernels.inc, one KERNEL("name.texel", words…) row a binary, for vk/gpu/kernel.c.
SHADER_SRC   := $(wildcard vk/shaders/*.comp)
SHADER_DEPS  := $(wildcard vk/shaders/lib/*.glsl vk/shaders/abi/*.h)
SHADER_TABLE := $(BUILD)/gen/kernels.inc
VARIANTS     := $(foreach s,$(SHADER_SRC),$(notdir $(s:.comp=)))

define variant_rule
$(BUILD)/spv/$(1).texel.spv: vk/shaders/$(1).comp $(SHADER_DEPS)
	@mkdir -p $$(@D)
	@echo "glsl $$@"
	@$(GLSLC) -O --target-env=vulkan1.1 -Ivk/shaders -DTEXEL=1 $$< -o $$@
$(BUILD)/spv/$(1).ssbo.spv: vk/shaders/$(1).comp $(SHADER_DEPS)
	@mkdir -p $$(@D)
	@echo "glsl $$@"
	@$(GLSLC) -O --target-env=vulkan1.1 -Ivk/shaders $$< -o $$@
SPIRV += $(BUILD)/spv/$(1).texel.spv $(BUILD)/spv/$(1).ssbo.spv
endef
SPIRV :=
$(foreach v,$(VARIANTS),$(eval $(call variant_rule,$(v))))

$(SHADER_TABLE): $(SPIRV) vk/shaders/variants.mk
	@mkdir -p $(@D)
	@for f in $(SPIRV); do \
		echo "KERNEL(\"$$(basename $$f .spv)\", "; \
		od -An -v -t u4 -w32 $$f | sed -E 's/ +([0-9]+)/\1u,/g; $$ s/,$$//'; \
		echo ")"; \
	done > $@.tmp
	@mv $@.tmp $@
