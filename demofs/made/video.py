#!/usr/bin/env python3
"""Makes media/ring.webm and media/ring.png: pages on their way from the disk through cache and ring to the client.

Needs rsvg-convert (librsvg2-bin), ffmpeg and a sans-serif font.

    python3 made/video.py media/ring.webm media/ring.png
"""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH, HEIGHT, FPS, SECONDS = 960, 540, 25, 12
FRAMES = FPS * SECONDS
STILL = 9 * FPS  # the frame that becomes the picture

INK, SOFT, LINE, PAPER, PAGE = "#ebe6dc", "#a89f91", "#5a544b", "#191816", "#e8763a"
SLOTS, RING_X, RING_Y, RADIUS = 16, 600, 270, 92
CACHE_X, CACHE_Y, SIDE, PITCH = 260, 186, 34, 42
DISK_X, CLIENT_X = 90, 850

# Four pages are read once, between 1 s and 3 s, and then sent three times over.
READ_AT = [1.0 + 0.45 * i for i in range(4)]
CACHED = [5, 6, 9, 10]
SEND_AT = [2.6 + 0.55 * i for i in range(12)]


def ease(t):
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


def between(a, b, t):
    return a[0] + (b[0] - a[0]) * ease(t), a[1] + (b[1] - a[1]) * ease(t)


def cell(index):
    return CACHE_X + index % 4 * PITCH, CACHE_Y + index // 4 * PITCH


def square(x, y, side, opacity=1.0):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{side}" height="{side}" rx="4" fill="{PAGE}" opacity="{opacity:.2f}"/>'


def slot_center(slot):
    angle = 2 * math.pi * (slot + 0.5) / SLOTS - math.pi
    return RING_X + RADIUS * math.cos(angle), RING_Y + RADIUS * math.sin(angle)


def frame(now):
    out = []
    say = lambda x, text, size=22, fill=INK, y=436: out.append(
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="middle">{text}</text>')
    out.append(f'<path d="M40 210 v120 a50 14 0 0 0 100 0 v-120" fill="none" stroke="{LINE}" stroke-width="3"/>')
    out.append(f'<ellipse cx="90" cy="210" rx="50" ry="14" fill="none" stroke="{LINE}" stroke-width="3"/>')
    out.append(f'<rect x="{CLIENT_X - 60}" y="215" width="120" height="90" rx="8" fill="none" stroke="{LINE}" stroke-width="3"/>')
    out.append(f'<path d="M{CLIENT_X} 305 v18 m-30 0 h60" fill="none" stroke="{LINE}" stroke-width="3"/>')
    for x, text in ((DISK_X, "disk"), (CACHE_X + 80, "cache"), (RING_X, "transmit ring"), (CLIENT_X, "clients")):
        say(x, text)

    for index in range(16):
        x, y = cell(index)
        out.append(f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" rx="4" fill="none" stroke="{LINE}" stroke-width="2"/>')
    reads = 0
    for index, start in zip(CACHED, READ_AT):
        x, y = between((DISK_X - SIDE / 2, 252), cell(index), (now - start) / 0.9)
        if now >= start:
            reads += 1
            out.append(square(x, y, SIDE))

    busy, sent = set(), 0
    for count, start in enumerate(SEND_AT):
        slot = count % SLOTS
        at = now - start
        center = slot_center(slot)
        x, y = cell(CACHED[count % 4])
        if 0 <= at < 0.5:
            # A description, not the page: a thin line to the slot.
            end = between((x + SIDE / 2, y + SIDE / 2), center, at / 0.5)
            out.append(f'<path d="M{x + SIDE / 2} {y + SIDE / 2} L{end[0]:.1f} {end[1]:.1f}" stroke="{PAGE}" stroke-width="3" '
                       f'stroke-dasharray="6 6" fill="none"/>')
        elif 0.5 <= at < 1.5:
            busy.add(slot)
        if 0.9 <= at < 1.7:
            x, y = between(center, (CLIENT_X, 260), (at - 0.9) / 0.8)
            out.append(square(x - 13, y - 13, 26, 1 - ease((at - 1.5) / 0.2)))
        if at >= 1.5:
            sent += 1
    for slot in range(SLOTS):
        a = 2 * math.pi * (slot + 0.06) / SLOTS - math.pi
        b = 2 * math.pi * (slot + 0.94) / SLOTS - math.pi
        points = [RING_X + RADIUS * math.cos(a), RING_Y + RADIUS * math.sin(a), RING_X + RADIUS * math.cos(b), RING_Y + RADIUS * math.sin(b)]
        color = PAGE if slot in busy else LINE
        out.append('<path d="M{:.1f} {:.1f} A{r} {r} 0 0 1 {:.1f} {:.1f}" fill="none" stroke="{}" stroke-width="18"/>'.format(
            *points, color, r=RADIUS))
    say(DISK_X, f"pages read: {reads}", 18, SOFT, 466)
    say(RING_X, "describes, does not copy", 18, SOFT, 466)
    say(CLIENT_X, f"pages sent: {sent}", 18, SOFT, 466)
    # Fades into its own beginning.
    fade = max(1 - now / 0.4, (now - SECONDS + 0.4) / 0.4, 0)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="DejaVu Sans, sans-serif">'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/><g transform="translate(0 -60)">{"".join(out)}</g>'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}" opacity="{fade:.2f}"/></svg>')


def paint(svg, png):
    subprocess.run(["rsvg-convert", "-w", str(WIDTH), "-h", str(HEIGHT), "-o", png], input=svg.encode(), check=True)


def main(video, picture):
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FRAMES):
            paint(frame(number / FPS), f"{folder}/{number:04}.png")
        subprocess.run(["ffmpeg", "-y", "-loglevel", "error", "-framerate", str(FPS), "-i", f"{folder}/%04d.png", "-c:v", "libvpx-vp9",
                        "-crf", "36", "-b:v", "0", "-g", "50", "-row-mt", "1", "-pix_fmt", "yuv420p", "-fflags", "+bitexact",
                        "-flags:v", "+bitexact", "-map_metadata", "-1", video], check=True)
        Path(picture).write_bytes(Path(f"{folder}/{STILL:04}.png").read_bytes())


main(*sys.argv[1:])
