# Draws what tests/bench.py measured:
#     gnuplot -e "directory='build/bench'; cores='one'" tests/bench.gnuplot

data = directory . '/medians.csv'
names = "ours release twin bare redis python"
title_of(i) = word("ours ours(release) goroutines bare\\_threads redis Python", i)

# The rows of one server: cores, mode, connections, server, ...
rows(mode, server) = sprintf("< awk -F, '$1 == \"%s\" && $2 == \"%s\" && $4 == \"%s\" && $15 !~ /unix|of/' %s", cores, mode, server, data)
count(mode, server) = int(system(sprintf("awk -F, '$1 == \"%s\" && $2 == \"%s\" && $4 == \"%s\" && $15 !~ /unix|of/' %s | wc -l", cores, mode, server, data)))

set datafile separator ','
set terminal svg size 760,440 font 'sans-serif,13' background '#ffffff'
set grid ytics lc rgb '#dddddd'
set key outside right top
set border 3
set tics nomirror
array colour[6] = ['#1b5fae', '#7fb2e5', '#00a07a', '#555555', '#c0392b', '#d9a400']
where = cores eq 'one' ? 'server and load on one core' : 'placed by the kernel'

set output directory . '/throughput-' . cores . '.svg'
set title 'One request in flight on each connection, ' . where
set logscale x 2
set xtics (1, 16, 64, 256, 2000)
set xlabel 'connections'
set ylabel 'replies per second'
set yrange [0:*]
set format y '%.0s%c'
plot for [i = 1:6] (count('rr', word(names, i)) > 0 ? rows('rr', word(names, i)) : '/dev/null') \
    using 3:5 with linespoints lw 2 pt 7 ps 0.6 lc rgb colour[i] title title_of(i)

set output directory . '/latency-' . cores . '.svg'
set title '256 connections, latency, ' . where
unset logscale x
set logscale y
set yrange [500:*]
set format y '%.0f'
set ylabel 'microseconds (logarithmic)'
set xlabel 'percentile'
set xrange [0.5:4.5]
set xtics ('p50' 1, 'p90' 2, 'p99' 3, 'p99.9' 4)
percentiles(server) = sprintf("< awk -F, '$1 == \"%s\" && $2 == \"rr\" && $3 == 256 && $4 == \"%s\" {print \"1,\" $6; print \"2,\" $7; print \"3,\" $8; print \"4,\" $9}' %s", cores, server, data)
plot for [i = 1:5] (count('rr', word(names, i)) > 0 ? percentiles(word(names, i)) : '/dev/null') \
    using 1:2 with linespoints lw 2 pt 7 ps 0.6 lc rgb colour[i] title title_of(i)

set output directory . '/memory-' . cores . '.svg'
set title 'Memory of a server with idle clients: RSS and kernel stacks'
unset logscale y
set xrange [0:*]
set yrange [0:*]
set xtics auto
set format x '%.0f'
set xlabel 'clients'
set ylabel 'MB'
plot for [i = 1:4] (count('idle', word(names, i)) > 0 ? rows('idle', word(names, i)) : '/dev/null') \
    using 3:12 with linespoints lw 2 pt 7 ps 0.6 lc rgb colour[i] title title_of(i)
