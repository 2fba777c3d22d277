#!/bin/sh
# Joins a guest's interface and the bridge; Xen's own script for this needs programs that are not here.
case $1 in
online | add)
	bridge=$(xenstore-read "$XENBUS_PATH/bridge")
	if brctl addif "$bridge" "$vif" && ip link set "$vif" up; then
		xenstore-write "$XENBUS_PATH/hotplug-status" connected
	else
		xenstore-write "$XENBUS_PATH/hotplug-error" "no bridge $bridge for $vif"
		exit 1
	fi
	;;
offline | remove)
	ip link set "$vif" down 2>/dev/null
	;;
esac
exit 0
