################################################################################
#
# diffused
#
################################################################################

DIFFUSED_VERSION = 0.1.0
# This external tree is part of the source it builds.
DIFFUSED_SITE = $(realpath $(BR2_EXTERNAL_DIFFUSED_PATH)/../..)
DIFFUSED_SITE_METHOD = local
DIFFUSED_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /build --exclude /build-* --exclude /demo
DIFFUSED_LICENSE = MIT
DIFFUSED_LICENSE_FILES = LICENSE
DIFFUSED_DEPENDENCIES = \
	dbus host-pkgconf inih jansson jpeg libarchive libdrm libpng systemd utf8proc \
	vulkan-headers vulkan-loader

DIFFUSED_MAKE_OPTS = GLSLC=$(call qstrip,$(BR2_PACKAGE_DIFFUSED_GLSLC))

define DIFFUSED_BUILD_CMDS
	$(TARGET_MAKE_ENV) $(TARGET_CONFIGURE_OPTS) $(MAKE) -C $(@D) \
		$(DIFFUSED_MAKE_OPTS) programs
endef

define DIFFUSED_INSTALL_TARGET_CMDS
	$(TARGET_MAKE_ENV) $(TARGET_CONFIGURE_OPTS) $(MAKE) -C $(@D) \
		$(DIFFUSED_MAKE_OPTS) install DESTDIR=$(TARGET_DIR) PREFIX=/usr
endef

# sysusers.d and tmpfiles.d are read at boot; the unit is enabled by systemd's presets.
define DIFFUSED_INSTALL_INIT_SYSTEMD
	mkdir -p $(TARGET_DIR)/usr/lib/systemd/system-preset
	echo "enable diffused.service" \
		> $(TARGET_DIR)/usr/lib/systemd/system-preset/50-diffused.preset
endef

ifeq ($(BR2_PACKAGE_DIFFUSED_SOFTWARE),y)
define DIFFUSED_INSTALL_SOFTWARE
	$(INSTALL) -D -m 0644 $(@D)/etc/drop-ins/software-rendering.conf \
		$(TARGET_DIR)/usr/lib/systemd/system/diffused.service.d/50-software-rendering.conf
endef
DIFFUSED_POST_INSTALL_TARGET_HOOKS += DIFFUSED_INSTALL_SOFTWARE
endif

ifeq ($(BR2_PACKAGE_DIFFUSED_DEMO_MODEL),y)
DIFFUSED_LICENSE += , MIT and Apache-2.0 and Unicode-DFS-2016 (demo model)
DIFFUSED_LICENSE_FILES += packaging/demo-model/NOTICE
define DIFFUSED_INSTALL_DEMO_MODEL
	mkdir -p $(TARGET_DIR)/usr/share/diffused/models/demo
	cd $(@D)/packaging/demo-model && cp -R model_index.json scheduler \
		text_encoder tokenizer unet vae $(TARGET_DIR)/usr/share/diffused/models/demo/
	$(INSTALL) -D -m 0644 $(@D)/packaging/debian/50-demo-model.conf \
		$(TARGET_DIR)/usr/lib/diffused/diffused.conf.d/50-demo-model.conf
endef
DIFFUSED_POST_INSTALL_TARGET_HOOKS += DIFFUSED_INSTALL_DEMO_MODEL
endif

$(eval $(generic-package))
