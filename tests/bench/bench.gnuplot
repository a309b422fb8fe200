# Draws what tests/bench/bench.py measured:
#     gnuplot -e "directory='build/bench'; cores='one'" tests/bench/bench.gnuplot

data = directory . '/medians.csv'
names = 'ours batch twin bare redis'
array titles[5] = ['ours', 'ours, chrt -b 0', 'goroutines', 'bare threads', \
    'redis (epoll)']
array colour[5] = ['#1b5fae', '#7fb2e5', '#00a07a', '#555555', '#c0392b']
where = cores eq 'one' ? 'server and load on one core' : 'placed by the kernel'

# The columns of medians.csv: cores, test, mode, connections, server, ...
rows(test, i) = sprintf( \
    "< awk -F, '$1 == \"%s\" && $2 ~ /^%s [0-9]+$/ && $5 == \"%s\"' %s", \
    cores, test, word(names, i), data)
there(test, i) = system(rows(test, i)[3:] . ' | wc -l') + 0 > 0

# The numbers of the servers that took part in the tests.
rr = ''
idle = ''
do for [i = 1:5] {
    rr = rr . (there('rr', i) ? ' ' . i : '')
    idle = idle . (there('idle', i) ? ' ' . i : '')
}

set datafile separator ','
set terminal svg size 720,430 font 'sans-serif,18' background '#ffffff'
set grid ytics lc rgb '#dddddd'
set key outside below center horizontal
set border 3
set tics nomirror
set xlabel 'connections'
set yrange [0:*]

if (strlen(rr)) {
    set output directory . '/throughput-' . cores . '.svg'
    set title 'One request in flight on each connection, ' . where
    set logscale x 2
    set xtics (1, 16, 64, 256, 2000)
    set ylabel 'replies per second'
    set format y '%.0s %c'
    plot for [i in rr] rows('rr', i + 0) \
        using 4:6 with linespoints lw 2 pt 7 ps 0.6 lc rgb colour[i + 0] \
        title titles[i + 0]

    set output directory . '/cost-' . cores . '.svg'
    set title "Processor time of the server for one reply,\n" . where
    set ylabel 'microseconds'
    set yrange [0:16]
    set format y '%.0f'
    plot for [i in rr] rows('rr', i + 0) \
        using 4:11 with linespoints lw 2 pt 7 ps 0.6 lc rgb colour[i + 0] \
        title titles[i + 0]

    set output directory . '/latency-' . cores . '.svg'
    set title '256 connections, ' . where
    unset logscale x
    set logscale y
    set ylabel 'latency, microseconds'
    set xlabel 'percentile'
    set xrange [0.7:4.3]
    set yrange [500:*]
    set xtics ('p50' 1, 'p90' 2, 'p99' 3, 'p99.9' 4)
    percentiles(i) = sprintf("< awk -F, '$1 == \"%s\" && $2 == \"rr 256\" " . \
        "&& $5 == \"%s\" { for (p = 1; p <= 4; p++) print p \",\" $(p + 6) }' %s", \
        cores, word(names, i), data)
    plot for [i in rr] percentiles(i + 0) \
        using 1:2 with linespoints lw 2 pt 7 ps 0.6 lc rgb colour[i + 0] \
        title titles[i + 0]
    unset logscale y
}

if (strlen(idle)) {
    set output directory . '/memory-' . cores . '.svg'
    set title 'Memory of a server with idle clients: RSS and kernel stacks'
    set xrange [0:*]
    set yrange [0:*]
    set xtics auto
    set format x '%.0f'
    set format y '%.0f'
    set xlabel 'clients'
    set ylabel 'MB'
    plot for [i in idle] rows('idle', i + 0) \
        using 4:13 with linespoints lw 2 pt 7 ps 0.6 lc rgb colour[i + 0] \
        title titles[i + 0]
}
