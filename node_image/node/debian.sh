#!/bin/sh
# Run by mmdebstrap on the node's root file system: what a machine does on its own that a node need not.
set -eu
root=$1
for unit in \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
  systemd-tmpfiles-clean.timer e2scrub_reap.service getty.target systemd-logind.service \
  systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
  systemd-pstore.service systemd-modules-load.service systemd-update-utmp.service \
  systemd-update-utmp-runlevel.service systemd-machine-id-commit.service systemd-random-seed.service \
  systemd-remount-fs.service systemd-sysusers.service systemd-hwdb-update.service systemd-firstboot.service \
  dev-hugepages.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-fs-fuse-connections.mount systemd-ask-password-console.path systemd-ask-password-wall.path \
  nftables.service
do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
# the log goes with the node
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=100M\n' > "$root/etc/systemd/journald.conf.d/node.conf"
: > "$root/etc/machine-id"
# each file below /var is copied into a volume when a node starts
rm -rf "$root/var/cache/debconf" "$root/var/lib/dpkg/info"
find "$root/var/log" -type f -delete
