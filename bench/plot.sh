#!/usr/bin/env bash
# Draws the costs of a comparison as one SVG chart: a group of bars for each load, a bar for each
# relay, as long as its cost is to the first relay's. Needs awk, nothing else.
#
#   bench/plot.sh TITLE FOOTER <COSTS >CHART.svg
#
# COSTS has a line for each load and relay, in the order in which they are drawn, with tabs between
# load, relay, what the cost counts, and the cost. A cost that is not a number is left out.
set -euo pipefail

[ $# = 2 ] || {
    sed -n 's/^# \{0,1\}//; 2,9p' "$0" >&2
    exit 64
}

TITLE=$1 FOOTER=$2 exec awk -F '\t' '
    # Text between tags.
    function plain(text) {
        gsub(/&/, "\\&amp;", text)
        gsub(/</, "\\&lt;", text)
        return text
    }
    function say(x, y, class, text) {
        printf "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">%s</text>\n", x, y, class, plain(text)
    }
    function box(x, y, width, height, colour) {
        printf "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", \
            x, y, width, height, colour
    }
    function rule(x, from, to, colour) {
        printf "<path d=\"M%.1f %.1fV%.1f\" stroke=\"%s\"/>\n", x, from, to, colour
    }
    # Breaks a text into FOOT[1], FOOT[2] and so on; how many there are.
    function wrap(text, most,    words, n, w, at) {
        n = split(text, words, " ")
        at = 1
        for (w = 1; w <= n; w++) {
            if (length(FOOT[at]) + length(words[w]) > most) at++
            FOOT[at] = FOOT[at] (FOOT[at] == "" ? "" : " ") words[w]
        }
        return at
    }
    function digits(x) { return sprintf(x < 10 ? "%.2f" : x < 100 ? "%.1f" : "%.0f", x) }

    $4 + 0 > 0 {
        if (!rows++) lead = $2
        if (!($1 in unit)) loads[++count] = $1
        if (!($2 in colour)) relays[++kinds] = $2
        unit[$1] = $3
        colour[$2] = ""
        cost[$1, $2] = $4
        bars[$1]++
    }

    END {
        split("#1b6ca8 #d1495b #e08e45 #5b8e7d #8d6a9f #6c757d", palette, " ")
        for (k = 1; k <= kinds; k++) colour[relays[k]] = palette[(k - 1) % 6 + 1]
        for (l = 1; l <= count; l++) first[loads[l]] = cost[loads[l], lead] + 0
        lines = wrap(ENVIRON["FOOTER"], 140)
        # Ratios beyond the scale are drawn cut off: one dear relay must not squeeze the others.
        scale = 2
        for (l = 1; l <= count; l++) for (k = 1; k <= kinds; k++)
            if (first[loads[l]] && (loads[l], relays[k]) in cost) {
                times = cost[loads[l], relays[k]] / first[loads[l]]
                if (times > scale) scale = times > MOST ? MOST : times
            }
        left = 190; wide = 500; width = 860; top = 76; bar = 14; gap = 16
        height = top + 16 + 13 * lines
        for (l = 1; l <= count; l++) height += bars[loads[l]] * bar + gap

        printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\">\n", \
            width, height, width, height
        print "<style>text{font:11px sans-serif;fill:#222}.title{font-size:16px;font-weight:bold}" \
            ".load{font-weight:bold}.load,.unit{text-anchor:end}.axis{text-anchor:middle}" \
            ".unit,.foot,.axis{fill:#666;font-size:10px}</style>"
        box(0, 0, width, height, "#ffffff")
        say(16, 26, "title", ENVIRON["TITLE"])
        x = 16
        for (k = 1; k <= kinds; k++) {
            box(x, 38, 11, 11, colour[relays[k]])
            say(x + 16, 48, "key", relays[k])
            x += 40 + 7 * length(relays[k])
        }
        bottom = height - 8 - 13 * lines
        for (mark = 0; mark <= scale; mark += scale > 4 ? 1 : 0.5) {
            at = left + wide * mark / scale
            rule(at, top - 4, bottom, mark == 1 ? "#444" : "#ddd")
            say(at, top - 8, "axis", mark)
        }
        y = top
        for (l = 1; l <= count; l++) {
            load = loads[l]
            middle = y + bars[load] * bar / 2
            say(left - 10, middle, "load", load)
            say(left - 10, middle + 12, "unit", unit[load])
            for (k = 1; k <= kinds; k++) {
                if (!((load, relays[k]) in cost)) continue
                own = cost[load, relays[k]]
                times = first[load] ? own / first[load] : 0
                shown = times > scale ? scale : times
                box(left, y + 1, wide * shown / scale, bar - 2, colour[relays[k]])
                # White cuts tell that the bar goes on.
                if (times > scale) for (c = 0; c < 2; c++)
                    box(left + wide - 16 + 6 * c, y + 1, 2, bar - 2, "#ffffff")
                say(left + wide * shown / scale + 5, y + bar - 3, "value", \
                    (times ? digits(times) " x  " : "") "(" digits(own) ")")
                y += bar
            }
            y += gap
        }
        for (f = 1; f <= lines; f++) say(16, height - 8 - 13 * (lines - f), "foot", FOOT[f])
        print "</svg>"
    }
' MOST="${MOST:-6}" -
