"""Draws lines with gnuplot. Each has its name at its end, a marker and a dash of
its own, so that a print in grey can be read; a bar at each point is its spread."""
import math
import os
import subprocess

SIZE = "720,460"
GAP = 0.07  # between two names, as a share of the height
# In every plot a design looks the same: colour, and number of gnuplot's marker.
LOOKS = {"threads": ("#1b5fae", 5), "epoll": ("#007a5a", 9), "goroutines": ("#b03020", 7),
         "fork": ("#333333", 4), "poll": ("#6a3d9a", 8), "redis": ("#8a5a00", 12)}


def ends(lines, height):
    """Where each name goes: beside the line's last point, but apart."""
    places = sorted((height(points[-1][1]), index) for index, (_, points) in enumerate(lines))
    for i in range(1, len(places)):
        places[i] = max(places[i][0], places[i - 1][0] + GAP), places[i][1]
    return {index: place for place, index in places}


def plot(directory, name, title, xlabel, ylabel, ticks, lines, logarithmic=False):
    """lines: (name, [(x, y, least, most), ...]); x is logarithmic, always."""
    lines = [(words, [point for point in points if point[1] > 0]) for words, points in lines]
    lines = [each for each in lines if each[1]]
    values = [value for _, points in lines for point in points for value in point[1:]]
    top = max(values) * (2 if logarithmic else 1.08)
    floor = min(value for value in values if value > 0) / 2 if logarithmic else 0

    def height(y):
        return (math.log(y / floor) / math.log(top / floor)) if logarithmic else y / top

    script = [f"set terminal svg size {SIZE} font 'sans-serif,18' background '#ffffff'",
              f"set output '{os.path.join(directory, name)}.svg'",
              f"set title '{title}'", f"set xlabel '{xlabel}'", f"set ylabel '{ylabel}'",
              "set border 3", "set tics nomirror", "set grid ytics lc rgb '#dddddd'",
              "set logscale x", "set rmargin 15", "set bars 0.6",
              f"set xrange [{ticks[0]}*0.8:{ticks[-1]}*1.15]", f"set yrange [{floor}:{top}]",
              # A name that would touch the one before stands a line below it.
              "set xtics (" + ", ".join(
                  f'"{"" if i == 0 or tick > 3 * ticks[i - 1] else chr(92) + "n"}{tick:,}" {tick}'
                  for i, tick in enumerate(ticks)) + ")"]
    if logarithmic:
        script.append("set logscale y")
    places = ends(lines, height)
    plots = []
    for index, (words, points) in enumerate(lines):
        colour, marker = LOOKS[words]
        script.append(f"$line{index} << END\n" + "\n".join(
            " ".join(map(str, point)) for point in points) + "\nEND")
        script.append(f"set label '{words}' at first {points[-1][0]}, graph {places[index]} "
                      f"offset 1,0 tc rgb '{colour}'")
        plots.append(f"$line{index} with yerrorlines lw 2 dt {list(LOOKS).index(words) % 4 + 1} "
                     f"pt {marker} ps 0.9 lc rgb '{colour}' notitle")
    subprocess.run(["gnuplot"], input="\n".join(script) + "\nplot " + ", ".join(plots) + "\n",
                   text=True, check=True)
