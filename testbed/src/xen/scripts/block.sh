#!/bin/sh
# Tells the block backend which device a guest's disk is; Xen's own script for this needs programs that are not here.
if [ "$1" = add ]; then
	device=$(xenstore-read "$XENBUS_PATH/params")
	if [ ! -b "$device" ]; then
		xenstore-write "$XENBUS_PATH/hotplug-error" "$device is no block device"
		exit 1
	fi
	xenstore-write "$XENBUS_PATH/physical-device" "$(stat -L -c %t:%T "$device")" \
		"$XENBUS_PATH/physical-device-path" "$device" "$XENBUS_PATH/hotplug-status" connected
fi
exit 0
