#!/bin/sh
# nginx does not start with an IPv6 address to listen on where the kernel has no IPv6
set -eu
[ -e /proc/net/if_inet6 ] || sed -i '/\[::\]/d' /etc/nginx/conf.d/default.conf
exec "$@"
