package loadtest

import (
	"fmt"
	"html/template"
	"math"
	"os"
	"strconv"
	"strings"
)

// WriteHTML writes the report as one page that loads nothing.
func (r *Report) WriteHTML(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var table strings.Builder
	r.Table(&table)
	if err := page.Execute(f, map[string]any{"Report": r, "Table": table.String(), "Charts": r.charts()}); err != nil {
		return err
	}
	return f.Close()
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>loadtest {{.Report.Scenario}}</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<style>
body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
pre{overflow-x:auto;background:#f6f6f4;padding:1em}
figure{display:inline-block;margin:0 1.5em 1.5em 0}
figcaption{font-weight:600}
svg text{font:11px system-ui,sans-serif;fill:#555}
dt{float:left;clear:left;width:7em;color:#666}dd{margin-left:8em;min-height:1.45em}
.bad{color:#b00020}
</style></head><body>
<h1>{{.Report.Scenario}}</h1>
{{range .Report.Failures}}<p class="bad">Failed: {{.}}</p>{{else}}<p>Nothing lost, doubled or out of order; every threshold held.</p>{{end}}
<pre>{{.Table}}</pre>
{{range .Charts}}<figure><figcaption>{{.Title}}</figcaption>{{.SVG}}</figure>{{end}}
<h2>Conditions</h2>
{{with .Report.Conditions}}<dl>
<dt>time</dt><dd>{{.Time}}</dd><dt>command</dt><dd>{{range .Command}}{{.}} {{end}}</dd>
<dt>machine</dt><dd>{{.CPU}}, {{.Cores}} cores; {{.Pinned}}; load before: {{.Load}}</dd>
<dt>kernel</dt><dd>Linux {{.Kernel}}, TCP {{.Congestion}}</dd><dt>Go</dt><dd>{{.Go}}</dd><dt>commit</dt><dd>{{.Commit}}</dd>
</dl>{{end}}
<p>Client and server share the machine, over loopback. Latency is from the time at which an event was due to the time after the client read it.
Plots show the last round.</p>
</body></html>
`))

// A line is one target's points in a chart.
type line struct {
	name string
	x, y []float64
}

type chart struct {
	Title string
	SVG   template.HTML
}

func (r *Report) charts() (list []chart) {
	if len(r.Rounds) == 0 {
		return nil
	}
	add := func(title, xUnit, yUnit string, logX bool, points func(*Result) ([]float64, []float64)) {
		var lines []line
		for i := range r.Rounds[len(r.Rounds)-1] {
			res := &r.Rounds[len(r.Rounds)-1][i]
			if x, y := points(res); len(x) > 1 {
				lines = append(lines, line{res.Target, x, y})
			}
		}
		if len(lines) > 0 {
			list = append(list, chart{title, plot(lines, xUnit, yUnit, logX)})
		}
	}
	second := func(of func(Second) float64) func(*Result) ([]float64, []float64) {
		return func(r *Result) (x, y []float64) {
			for _, s := range r.Series {
				x, y = append(x, s.At), append(y, of(s))
			}
			return x, y
		}
	}
	sample := func(of func(Sample) float64) func(*Result) ([]float64, []float64) {
		return func(r *Result) (x, y []float64) {
			for _, s := range r.Samples {
				x, y = append(x, s.At), append(y, of(s))
			}
			return x, y
		}
	}
	add("Latency p99 over time", "s", "ms", false, second(func(s Second) float64 { return s.P99 }))
	add("Latency p50 over time", "s", "ms", false, second(func(s Second) float64 { return s.P50 }))
	add("Share of events within", "ms", "%", true, func(r *Result) (x, y []float64) {
		for _, p := range r.CDF {
			x, y = append(x, max(p.Ms, 0.001)), append(y, 100*p.Share)
		}
		return x, y
	})
	add("Deliveries", "s", "per second", false, second(func(s Second) float64 { return s.Rate }))
	add("Server CPU", "s", "cores", false, sample(func(s Sample) float64 { return s.Cores }))
	add("Server resident memory", "s", "MiB", false, sample(func(s Sample) float64 { return float64(s.Resident) / (1 << 20) }))
	add("Steps of saturate: p99 by deliveries", "deliveries/s", "ms", false, func(r *Result) (x, y []float64) {
		for _, s := range r.Steps {
			if s.Held {
				x, y = append(x, s.Delivered), append(y, s.P99)
			}
		}
		return x, y
	})
	return list
}

// plot draws lines over common axes; y begins at 0.
func plot(lines []line, xUnit, yUnit string, logX bool) template.HTML {
	const width, height, left, bottom = 500.0, 220.0, 60.0, 24.0
	colours := []string{"#0b5fa5", "#c25e00", "#3a7d34", "#7a3a8c"}
	at := func(x float64) float64 {
		if logX {
			return math.Log10(x)
		}
		return x
	}
	x0, x1, y1 := math.Inf(1), math.Inf(-1), 0.0
	for _, l := range lines {
		for i := range l.x {
			x0, x1, y1 = min(x0, at(l.x[i])), max(x1, at(l.x[i])), max(y1, l.y[i])
		}
	}
	stepX, stepY := step(x1-x0), step(y1)
	if logX {
		stepX = 1 // decades
	}
	x0, x1 = math.Floor(x0/stepX)*stepX, math.Ceil(x1/stepX)*stepX
	y1 = math.Ceil(y1/stepY) * stepY
	x1, y1 = max(x1, x0+stepX), max(y1, stepY)
	px := func(x float64) float64 { return left + (x-x0)/(x1-x0)*(width-left-20) }
	py := func(y float64) float64 { return height - bottom - y/y1*(height-bottom-20) }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg width="%.0f" height="%.0f" role="img">`, width, height)
	for i := range int(y1/stepY+0.5) + 1 {
		y := float64(i) * stepY
		fmt.Fprintf(&b, `<path d="M%.0f %.1fH%.0f" stroke="#ddd"/><text x="%.0f" y="%.1f" text-anchor="end">%s</text>`, left, py(y), width-20, left-5, py(y)+4, tick(y))
	}
	for i := range int((x1-x0)/stepX+0.5) + 1 {
		x := x0 + float64(i)*stepX
		name := tick(x)
		if logX {
			name = tick(math.Pow(10, x))
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%.0f" text-anchor="middle">%s</text>`, px(x), height-6, name)
	}
	fmt.Fprintf(&b, `<text x="2" y="12">%s by %s</text>`, yUnit, xUnit)
	for i, l := range lines {
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, colour)
		for j := range l.x {
			fmt.Fprintf(&b, "%.1f,%.1f ", px(at(l.x[j])), py(l.y[j]))
		}
		fmt.Fprintf(&b, `"/><text x="%.0f" y="12" style="fill:%s">%s</text>`, 160+float64(i)*90, colour, template.HTMLEscapeString(l.name))
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // made of numbers, and names that are escaped
}

// step is 1, 2 or 5 times a power of ten, and goes into the range about five times.
func step(span float64) float64 {
	if span <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(span/5)))
	switch n := span / 5 / unit; {
	case n < 2:
		return 2 * unit
	case n < 5:
		return 5 * unit
	}
	return 10 * unit
}

func tick(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
