package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/pushhub/pushhub/protocol"
)

// simulator makes up what the backends of a render farm would publish: a few jobs
// that are always under way, and alerts. The same seed gives the same events. It
// is used by one goroutine.
type simulator struct {
	random *rand.Rand
	jobs   []*renderJob // one for each of the farm's places; over, until the next begins
	begun  int          // jobs so far
}

const (
	simulatedJobs = 4
	simulatedPace = 400 * time.Millisecond
	// One job in failEvery fails, halfway through its rendering: the second, and
	// so on.
	failEvery = 6
	// One step in calmSteps brings an alert that concerns no job.
	calmSteps = 20
)

func newSimulator(seed uint64) *simulator {
	s := &simulator{random: rand.New(rand.NewPCG(seed, seed))}
	for i := range simulatedJobs {
		s.jobs = append(s.jobs, &renderJob{over: true, wait: 1 + 5*i}) // the first ones come one after the other
	}
	return s
}

// run publishes a step at each pace until ctx ends. What fails is told to failed
// and not repeated: the next step brings newer progress.
func (s *simulator) run(ctx context.Context, pace time.Duration, publish func([]protocol.Publication) error, failed func(error)) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		if err := publish(s.step()); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// The stages of a job, in their order.
const (
	queued = iota
	preparing
	rendering
	encoding
	completed
)

var stageNames = [...]string{"queued", "preparing", "rendering", "encoding", "completed"}

// renderJob is one simulated job.
type renderJob struct {
	// fixed after construction
	id, name, node string
	frames         int
	speed          int // frames a step
	failAt         int // frame at which it fails, 0 = it does not

	stage, wait int // wait: steps until the stage ends; of rendering the frames tell
	frame       int
	over        bool
}

var (
	scenes = []string{
		"harbor at dawn", "glass staircase", "desert convoy", "kitchen, morning light", "orbital dock",
		"rain on neon", "cathedral fly-through", "forest creek", "turbine cutaway", "velvet sofa", "night market", "glacier",
	}
	shots = []string{"shot 010", "shot 020", "shot 040", "shot 110", "turntable", "preview", "final 4K", "close-up"}
	// Why jobs fail.
	failures = []string{
		"out of memory on the GPU", "texture wood_albedo.exr is missing", "the node stopped answering", "the simulation cache is corrupt",
	}
	// Alerts that concern no job.
	calm = []alert{
		{Severity: "info", Title: "Node joined", Message: "render-node-12 is ready for work"},
		{Severity: "warning", Title: "Storage filling up", Message: "/projects is 86 % full"},
		{Severity: "info", Title: "Licences", Message: "14 of 20 render licences are in use"},
		{Severity: "warning", Title: "Node is hot", Message: "render-node-3 runs at 84 °C and was slowed down"},
		{Severity: "info", Title: "Backup done", Message: "the nightly backup of the asset store took 41 minutes"},
	}
)

// alert is the data of alert.v1.
type alert struct {
	Severity string `json:"severity"`
	Title    string `json:"title"`
	Message  string `json:"message"`
	JobID    string `json:"job_id,omitempty"`
}

// progress is the data of render.progress.v1.
type progress struct {
	JobID    string `json:"job_id"`
	Name     string `json:"name"`
	Status   string `json:"status"` // queued, running, completed, failed
	Stage    string `json:"stage"`
	Progress int    `json:"progress"` // percent
	Frame    int    `json:"frame"`
	Frames   int    `json:"frames"`
	Message  string `json:"message,omitempty"`
}

func (s *simulator) newJob() *renderJob {
	s.begun++
	id, err := uuid.NewRandomFromReader(randomBytes{s.random})
	if err != nil {
		panic(err) // randomBytes never fails
	}
	j := &renderJob{
		id:     id.String(),
		name:   pick(s.random, scenes) + ", " + pick(s.random, shots),
		node:   fmt.Sprintf("render-node-%d", 1+s.random.IntN(12)),
		frames: 24 * (4 + s.random.IntN(12)),
		speed:  2 + s.random.IntN(4),
		wait:   2 + s.random.IntN(6),
	}
	if s.begun%failEvery == 2 {
		j.failAt = j.frames/3 + s.random.IntN(j.frames/3)
	}
	return j
}

// step moves every job on, and gives what there is to tell about that.
func (s *simulator) step() []protocol.Publication {
	var all []protocol.Publication
	for i, job := range s.jobs {
		if job.over {
			if job.wait--; job.wait > 0 {
				continue
			}
			job = s.newJob()
			s.jobs[i] = job
			all = append(all, job.tell("queued", "waiting for a node", false))
			continue
		}
		all = append(all, s.advance(job)...)
	}
	if s.random.IntN(calmSteps) == 0 {
		all = append(all, tellAlert(protocol.Alerts, "farm-monitor", pick(s.random, calm)))
	}
	return all
}

// advance moves one job on.
func (s *simulator) advance(j *renderJob) []protocol.Publication {
	if j.stage == rendering {
		j.frame = min(j.frame+1+s.random.IntN(2*j.speed), j.frames)
		switch {
		case j.failAt > 0 && j.frame >= j.failAt:
			why := pick(s.random, failures)
			j.over, j.wait = true, 12
			return []protocol.Publication{
				j.tell("failed", why, true),
				tellAlert("alerts.render", j.node, alert{
					Severity: "critical", Title: "Render failed", JobID: j.id,
					Message: fmt.Sprintf("%s: %s at frame %d", j.name, why, j.frame),
				}),
			}
		case j.frame < j.frames:
			return []protocol.Publication{j.tell("running", "", false)}
		}
		j.wait = 0
	}
	if j.wait--; j.wait > 0 {
		if j.stage == queued {
			return nil
		}
		return []protocol.Publication{j.tell("running", "", false)}
	}
	j.stage++
	j.wait = 2 + s.random.IntN(4)
	switch j.stage {
	case preparing:
		return []protocol.Publication{j.tell("running", "loading the scene on "+j.node, false)}
	case rendering:
		return []protocol.Publication{j.tell("running", fmt.Sprintf("rendering %d frames", j.frames), false)}
	case encoding:
		return []protocol.Publication{j.tell("running", "encoding the film", false)}
	}
	j.over, j.wait = true, 8
	return []protocol.Publication{
		j.tell("completed", fmt.Sprintf("%d frames rendered", j.frames), true),
		tellAlert("alerts.render", j.node, alert{Severity: "info", Title: "Render completed", Message: j.name + " is ready", JobID: j.id}),
	}
}

// tell gives the progress of a job as it is now.
func (j *renderJob) tell(status, message string, final bool) protocol.Publication {
	percent := 0
	switch j.stage {
	case preparing:
		percent = 2
	case rendering:
		percent = 5 + 85*j.frame/j.frames
	case encoding:
		percent = 95
	case completed:
		percent = 100
	}
	return protocol.Publication{
		Topic: protocol.JobsPrefix + j.id, Type: "render.progress.v1", Source: j.node, Key: "progress", Final: final,
		Data: compact(progress{
			JobID: j.id, Name: j.name, Status: status, Stage: stageNames[j.stage], Progress: percent,
			Frame: j.frame, Frames: j.frames, Message: message,
		}),
	}
}

func tellAlert(topic, source string, a alert) protocol.Publication {
	return protocol.Publication{Topic: topic, Type: "alert.v1", Source: source, Data: compact(a)}
}

func compact(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always go
	}
	return b
}

func pick[T any](random *rand.Rand, all []T) T { return all[random.IntN(len(all))] }

// randomBytes reads from a source of numbers.
type randomBytes struct{ random *rand.Rand }

// Read implements io.Reader.
func (r randomBytes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.random.Uint32())
	}
	return len(p), nil
}
