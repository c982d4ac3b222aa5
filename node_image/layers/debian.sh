#!/bin/sh
# Run by mmdebstrap on the root of a layer for container images: the users that the public images have.
set -eu
root=$1
user() { # name, uid, home
  echo "$1:x:$2:$2::$3:/usr/sbin/nologin" >> "$root/etc/passwd"
  echo "$1:x:$2:" >> "$root/etc/group"
}
# Debian's packages may have taken these numbers for users that no image needs
for file in passwd group shadow; do
  if [ -f "$root/etc/$file" ]; then sed -i -E '/^(redis|systemd-[a-z]+|messagebus):/d' "$root/etc/$file"; fi
done
user nginx 101 /nonexistent
user redis 999 /data
user nonroot 65532 /home/nonroot
user user-defined-in-image 1000 /home/user-defined-in-image
echo 'group-defined-in-image:x:50000:user-defined-in-image' >> "$root/etc/group"
# a container gets its own
: > "$root/etc/hostname"
: > "$root/etc/resolv.conf"
rm -rf "$root/var/cache/debconf"
find "$root/var/log" -type f -delete
