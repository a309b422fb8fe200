#!/bin/sh
# Shows the TCP segments of port 1208 on the loopback interface, each on one
# line. The windows and options are left out. Ctrl-C ends it. Needs root.
#
#     lab-notes/programs/wire.sh [FILTER]     of pcap-filter(7), for some of them
tcpdump --immediate-mode -tnli lo "tcp port 1208${1:+ and $1}" |
    sed -u 's/, win.*length/, length/'
