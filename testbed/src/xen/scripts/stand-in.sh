# The stand-in guest: network at the command line's `address`, and HTTP. What is posted to /cgi-bin/run is run by a shell.
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
	echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
	ip address add "$address" dev eth0
	ip link set eth0 up
fi
mkdir -p /www/cgi-bin
cat >/www/cgi-bin/run <<'SCRIPT'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
exec sh 2>&1
SCRIPT
chmod +x /www/cgi-bin/run
httpd -p 80 -h /www
echo "stand-in: serving"
while :; do sleep 1000; done
