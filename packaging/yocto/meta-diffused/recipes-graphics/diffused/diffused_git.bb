SUMMARY = "Picture generation inside a device, as a system service"
DESCRIPTION = "A daemon that keeps a Stable Diffusion 1.x model in the graphics card's memory, \
takes prompts over D-Bus or from a drop folder, and leaves PNG files in a spool directory."
SECTION = "graphics"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=23010daedb126605ec9bd48e38f46750"

PV = "0.1.0+git"

# This layer is part of the tree it builds: the tree around it is the source. For a copy of the layer
# elsewhere set EXTERNALSRC:pn-diffused.
inherit externalsrc
EXTERNALSRC ?= "${@os.path.realpath(os.path.join(d.getVar('THISDIR'), *['..'] * 5))}"

DEPENDS = "jansson jpeg libarchive libdrm libinih libpng shaderc-native systemd utf8proc vulkan-headers vulkan-loader"

inherit features_check pkgconfig systemd

REQUIRED_DISTRO_FEATURES = "systemd vulkan"

# The tree's own variables; the rest (CC, CFLAGS, LDFLAGS, AR, PKG_CONFIG_*) comes by environment.
EXTRA_OEMAKE = "BUILD=${B}"
PLACES = "DESTDIR=${D} PREFIX=${prefix} SYSCONFDIR=${sysconfdir} UNITDIR=${systemd_system_unitdir}"

do_compile() {
    oe_runmake -C ${S} programs
}

do_install() {
    oe_runmake -C ${S} install ${PLACES}
    install -d ${D}${datadir}/diffused/models/demo
    for part in model_index.json scheduler text_encoder tokenizer unet vae; do
        cp -R --no-dereference --preserve=mode ${S}/packaging/demo-model/$part \
            ${D}${datadir}/diffused/models/demo/
    done
    install -D -m 0644 ${S}/packaging/debian/50-demo-model.conf \
        ${D}${prefix}/lib/diffused/diffused.conf.d/50-demo-model.conf
    install -D -m 0644 ${S}/etc/drop-ins/software-rendering.conf \
        ${D}${systemd_system_unitdir}/diffused.service.d/50-software-rendering.conf
}

SYSTEMD_SERVICE:${PN} = "diffused.service"

PACKAGES =+ "${PN}-software ${PN}-demo-model"

# sysusers.d and tmpfiles.d are read at boot: no users or folders are made here.
FILES:${PN} += " \
    ${datadir}/bash-completion \
    ${datadir}/dbus-1 \
    ${datadir}/diffused/drop-ins \
    ${datadir}/fish \
    ${datadir}/zsh \
    ${prefix}/lib/diffused \
    ${prefix}/lib/systemd/catalog \
    ${prefix}/lib/sysusers.d \
    ${prefix}/lib/tmpfiles.d \
    ${systemd_system_unitdir} \
"
FILES:${PN}-software = "${systemd_system_unitdir}/diffused.service.d/50-software-rendering.conf"
FILES:${PN}-demo-model = " \
    ${datadir}/diffused/models/demo \
    ${prefix}/lib/diffused/diffused.conf.d/50-demo-model.conf \
"
CONFFILES:${PN} = "${sysconfdir}/diffused/diffused.conf"

SUMMARY:${PN}-software = "Picture generation without a graphics card"
SUMMARY:${PN}-demo-model = "Small model for the picture daemon"
LICENSE:${PN}-demo-model = "MIT & Apache-2.0 & Unicode-DFS-2016"

RDEPENDS:${PN} = "dbus"
RRECOMMENDS:${PN} = "mesa-vulkan-drivers"
RDEPENDS:${PN}-software = "${PN} mesa-vulkan-drivers"
RDEPENDS:${PN}-demo-model = "${PN}"
