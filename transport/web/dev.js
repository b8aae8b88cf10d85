// The demo page of `pushhub dev`: one plain EventSource, and an honest account
// of what came through it. What the hub says (`subscribed`, `gap`) and what was
// counted here are kept apart, and shown side by side after each resume.
//
// To a client a cursor is opaque. This page alone looks inside: seqs count all
// events of a tenant, so who follows ">" can see by counting that none is missing.

/** @typedef {{tenant: string, token: string, topics: string[]}} Config */
/** @typedef {"live"|"replayed"|"skipped"|"gone"|"missing"} Kind  how an id came, or did not */

const away = 3; // seconds that the button keeps the page off the hub
const shown = { strip: 400, receipt: 240, log: 3, jobs: 8, finished: 4, alerts: 6 };
const lingers = 4000; // ms that a finished job stays among the running ones
const labels = { connecting: "Connecting", live: "Live", resuming: "Dropped, resuming", dropped: "Dropped", closed: "Closed" };

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** @type {Config} */
let config = { tenant: "", token: "", topics: [] };
/** @type {EventSource|null} */
let source = null;
let cursor = ""; // the newest e.lastEventId
let reason = ""; // of the last bye
let run = newRun(); // the connection's account
const at = { epoch: "", seq: 0 }; // the last place that was accounted for
const count = { received: 0, resumes: 0, gaps: 0 };

$("drop").addEventListener("click", press);
for (const b of document.querySelectorAll("[data-copy]")) b.addEventListener("click", () => copy(b));
connect();

// ——— The connection ———

/** Gets a token and connects; resumes after the cursor if there is one. */
async function connect() {
  setState(cursor ? "resuming" : "connecting");
  try {
    const answer = await fetch("/dev/config.json");
    if (!answer.ok) throw new Error(`the hub answered ${answer.status}`);
    config = await answer.json();
  } catch {
    return leave("closed", "the hub does not answer", away);
  }
  showConfig();
  source = new EventSource(streamURL());
  source.onopen = () => { run = newRun(); };
  source.onmessage = onEvent;
  source.addEventListener("control", onControl);
  source.onerror = onError;
}

/** A new EventSource cannot set Last-Event-ID: the cursor goes into the query. */
function streamURL() {
  const query = new URLSearchParams({ token: config.token, topics: config.topics.join(",") });
  query.set(cursor ? "since" : "last", cursor || "1");
  return `/api/v1/stream?${query}`;
}

/** The EventSource reconnects by itself, with Last-Event-ID; after a refusal it never does. */
function onError() {
  if (source.readyState === EventSource.CLOSED) leave("closed", reason || "the stream was refused", away);
  else setState(cursor ? "resuming" : "connecting", reason);
}

/** Stays off the hub for some seconds, then connects again. */
async function leave(state, why, seconds) {
  source?.close();
  setState(state, why);
  for (let s = seconds; s > 0; s--) {
    $("drop").textContent = `Back in ${s} s`;
    await sleep(1000);
  }
  await connect();
}

/** The button: drops the connection, or connects again after the hub closed it for good. */
function press() {
  if ($("drop").ariaDisabled === "true") return;
  if (document.body.dataset.state === "closed") return connect();
  note("away", `Dropped after ${cursor}`, "Nothing reaches this page now. The hub keeps what is published.");
  leave("dropped", "", away);
}

function setState(state, why = "") {
  document.body.dataset.state = state;
  $("state").textContent = labels[state] + (why ? `: ${why}` : "");
  $("drop").textContent = "Drop the connection";
  $("drop").ariaDisabled = String(state !== "live");
  if (state === "resuming" || state === "closed") say($("state").textContent);
}

// ——— What the hub sends ———

/** What is counted of one connection, from its opening on. */
function newRun() {
  return { after: cursor, replaying: true, replayed: 0, missing: 0, twice: 0, foreign: false, gaps: [], kinds: [] };
}

/** @param {MessageEvent} e */
function onEvent(e) {
  const event = JSON.parse(e.data);
  $("received").textContent = ++count.received;
  if (e.lastEventId === event.id) { // events shown for `last` carry no id: they are older than the stream
    if (run.replaying) run.replayed++;
    account(event.id, run.replaying ? "replayed" : "live");
  }
  keepCursor(e);
  const data = Object(event.data);
  if (event.topic.startsWith("jobs.")) showJob(event, data);
  else showAlert(event, data);
}

/** @param {MessageEvent} e */
function onControl(e) {
  const message = JSON.parse(e.data);
  keepCursor(e);
  switch (message.op) {
    case "gap": return onGap(message);
    case "subscribed": return onSubscribed(message);
    case "heartbeat": return message.cursor && account(message.cursor);
    case "bye": return onBye(message);
  }
}

function keepCursor(e) {
  if (e.lastEventId) $("cursor").textContent = cursor = e.lastEventId;
}

function onGap({ topic, since, reason: why }) {
  $("gaps").textContent = ++count.gaps;
  run.gaps.push(`${topic} (${why})`);
  if (!run.replaying) note("gap", `Gap in ${topic} after ${since}`, `The hub says that events are gone: ${why}.`);
  if (why === "epoch") $("jobs").replaceChildren(); // jobs of a former life may never end
}

/** `subscribed` means "caught up": the moment to draw the balance. */
function onSubscribed({ topics, cursor: upTo }) {
  if (run.after) account(upTo);
  else Object.assign(at, place(upTo));
  run.replaying = false;
  reason = "";
  setState("live");
  if (run.after) balance(topics, upTo);
  run.gaps = [];
}

/** 4403 is final, 4401 asks for a new token; after any other the EventSource resumes by itself. */
function onBye({ code, reason: why }) {
  reason = why.replaceAll("_", " ");
  if (code === 4401) return leave("closed", reason, 1);
  if (code !== 4403) return;
  source.close();
  setState("closed", reason);
  $("drop").textContent = "Connect again";
  $("drop").ariaDisabled = "false";
}

// ——— The account of ids ———

/** @returns {{epoch: string, seq: number}} */
function place(id) {
  const [epoch, seq] = id.split("-");
  return { epoch, seq: Number(seq) };
}

/** Only ">" alone covers every seq of the tenant. */
const contiguous = () => config.topics.length === 1 && config.topics[0] === ">";

/**
 * Accounts for an id that came, or, without a kind, for all up to a cursor that the hub gave.
 * @param {string} id
 * @param {Kind} [kind]
 */
function account(id, kind) {
  const to = place(id);
  if (to.epoch === at.epoch) {
    if (kind && to.seq <= at.seq) run.twice++;
    hole(to.seq - at.seq - (kind ? 1 : 0));
    if (kind && !run.replaying) run.gaps = []; // a gap while live stands before the next event
  } else if (!run.gaps.length) {
    run.foreign = true; // another life of the log: what lies between cannot be counted
  }
  if (to.epoch !== at.epoch || to.seq > at.seq) Object.assign(at, to);
  if (kind) draw(kind, id);
}

/** Seqs that did not come: the hub said so, or it superseded them, or they are lost. */
function hole(n) {
  if (n <= 0 || !contiguous()) return;
  const kind = run.gaps.length ? "gone" : run.replaying ? "missing" : "skipped";
  if (kind === "missing") run.missing += n;
  for (let i = Math.min(n, shown.strip); i > 0; i--) draw(kind, "");
}

/** @param {Kind} kind */
function draw(kind, id) {
  $("strip").append(bar(kind, id));
  keepLast($("strip"), shown.strip);
  if (run.replaying) run.kinds.push(kind);
  $("legend").querySelector(`[data-kind=${kind}]`).hidden = false;
}

function bar(kind, id) {
  const b = document.createElement("i");
  b.dataset.kind = kind;
  b.title = id || kind;
  return b;
}

/** Writes down what a resume brought: what the hub says, and what was counted here. */
function balance(topics, upTo) {
  $("resumes").textContent = ++count.resumes;
  const said = topics.reduce((n, t) => n + t.replayed, 0);
  const resumed = topics.every((t) => t.resumed);
  const gone = run.gaps.length ? `the hub announced a gap in ${run.gaps.join(", ")}` : "no gap announced";
  const countable = contiguous() && !run.gaps.length && !run.foreign;
  const lost = countable ? `${run.missing} missing` : run.foreign ? `in another epoch, ${gone}` : gone;
  const good = resumed && !run.gaps.length && !run.missing && !run.twice && !run.foreign && said === run.replayed;
  $("log").querySelector("[data-kind=away]")?.remove();
  const entry = note(good ? "good" : run.gaps.length ? "gap" : "bad",
    `Resumed after ${run.after}: ${events(run.replayed)} replayed, ${lost}`,
    `The hub says: ${resumed ? "resumed" : "not resumed"}, ${said} replayed, ${gone}, complete up to ${upTo}. ` +
    `Counted here: ${run.replayed} received, ${run.twice || "none"} twice.`);
  const receipt = make("div", "receipt");
  receipt.ariaHidden = "true"; // the words say it
  receipt.append(...run.kinds.slice(-shown.receipt).map((kind) => bar(kind, "")));
  entry.append(receipt);
}

const events = (n) => `${n} ${n === 1 ? "event" : "events"}`;

// ——— Drops and resumes, in words ———

/** @returns {HTMLElement} the entry */
function note(kind, title, detail) {
  const entry = make("li");
  entry.dataset.kind = kind;
  entry.append(make("strong", "", title), make("time", "quiet", clock()), make("p", "quiet", detail));
  $("log").prepend(entry);
  keepFirst($("log"), shown.log);
  say(title);
  return entry;
}

/** Tells those who listen instead of look. */
function say(text) { $("said").textContent = text; }

// ——— Render jobs ———

/** Shows where a job is. @param {{topic: string, time: string}} event */
function showJob(event, data) {
  const id = String(data.job_id ?? event.topic.slice("jobs.".length));
  const ended = ["completed", "failed", "cancelled"].find((s) => s === data.status || s === data.stage);
  let card = [...$("jobs").children].find((c) => c.dataset.job === id);
  if (ended && !card) return finish(id, data, ended, event.time); // it ended before the page came
  if (!card && !makeRoom()) return;
  if (!card) $("jobs").append(card = newJob(id));
  const part = (name) => card.querySelector(`.${name}`);
  const percent = Math.min(100, Math.max(0, Number(data.progress) || 0));
  card.dataset.status = ended ?? "running";
  card.dataset.seen = Date.now();
  part("name").textContent = data.name ?? id;
  part("status").textContent = ended ?? `${Math.round(percent)} %`;
  part("track").ariaValueNow = String(Math.round(percent));
  part("track").ariaLabel = `${data.name ?? id}, ${ended ?? data.stage ?? ""}`;
  part("fill").style.setProperty("--part", percent / 100);
  part("frames").textContent = data.frames ? `frame ${data.frame ?? 0} of ${data.frames}` : "";
  if (data.message || ended) part("message").textContent = data.message ?? ""; // else the last one stands
  showStage(part("stages"), data.stage, ended === "completed");
  if (!ended || card.dataset.ends) return;
  card.dataset.ends = "soon";
  say(`${data.name ?? id} ${ended}`);
  setTimeout(() => { card.remove(); finish(id, data, ended, event.time); }, lingers);
}

/** Whether one more job can be shown; one that has been silent for a minute makes way. */
function makeRoom() {
  if ($("jobs").children.length >= shown.jobs) {
    [...$("jobs").children].find((c) => Date.now() - c.dataset.seen > 60_000)?.remove();
  }
  return $("jobs").children.length < shown.jobs;
}

const stages = ["queued", "preparing", "rendering", "encoding"];

/** An empty card, in the order in which it is read. */
function newJob(id) {
  const card = make("li", "job");
  card.dataset.job = id;
  const track = Object.assign(make("div", "track"), { role: "progressbar", ariaValueMin: "0", ariaValueMax: "100" });
  track.append(make("div", "fill"));
  const list = make("ol", "stages");
  list.append(...stages.map((s) => make("li", "", s)));
  const foot = make("p", "foot");
  foot.append(make("span", "frames"), make("span", "message"));
  card.append(make("h3", "name"), make("p", "status"), track, list, foot);
  return card;
}

/** Marks the stage that a job is in. */
function showStage(list, stage, all) {
  const now = stages.indexOf(stage);
  [...list.children].forEach((item, i) => {
    item.dataset.is = all || i < now ? "past" : i === now ? "now" : "ahead";
    item.ariaCurrent = i === now ? "step" : null;
  });
}

/** Puts a job on the list of those that ended. */
function finish(id, data, ended, time) {
  const item = make("li", "tagged");
  item.dataset.status = ended;
  item.append(make("span", "tag", ended), make("span", "", data.name ?? id), make("time", "quiet", clock(time)));
  $("finished").prepend(item);
  keepFirst($("finished"), shown.finished);
}

// ——— Alerts, and whatever else was published ———

/** @param {{topic: string, time: string}} event */
function showAlert(event, data) {
  const alert = event.topic === "alerts" || event.topic.startsWith("alerts.");
  const severity = ["warning", "critical"].find((s) => s === data.severity) ?? "info";
  const title = alert && data.title ? data.title : event.topic;
  const text = alert && data.title ? data.message ?? "" : JSON.stringify(event.data).slice(0, 300);
  const item = make("li", "tagged");
  item.dataset.severity = severity;
  item.append(make("span", "tag", alert ? severity : "event"), make("strong", "", title),
    make("time", "quiet", clock(event.time)), make("p", "", text));
  if (data.job_id) item.append(make("code", "quiet", `job ${data.job_id}`));
  $("alerts").prepend(item);
  keepFirst($("alerts"), shown.alerts);
  if (severity === "critical") say(`Critical alert: ${title}`);
}

// ——— By hand ———

function showConfig() {
  $("tenant").textContent = config.tenant;
  const bearer = `-H 'Authorization: Bearer ${config.token}'`;
  const example = { severity: "warning", title: "Hello", message: "Published by hand" };
  const event = JSON.stringify({ topic: "alerts", type: "alert.v1", data: example });
  const topics = encodeURIComponent(config.topics.join(","));
  $("publish").textContent = `curl ${location.origin}/api/v1/events \\\n  -H 'Content-Type: application/json' \\\n  -d '${event}' \\\n  ${bearer}`;
  $("follow").textContent = `curl -N '${location.origin}/api/v1/stream?topics=${topics}&last=1' \\\n  ${bearer}`;
}

/** Copies a command; where the browser forbids that, selects it. */
async function copy(button) {
  const text = $(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(text);
    button.textContent = "Selected";
  }
  await sleep(2000);
  button.textContent = "Copy";
}

// ——— The document ———

/** Makes an element; text is only ever text. */
function make(tag, className = "", text = "") {
  const e = document.createElement(tag);
  e.className = className;
  e.textContent = text;
  return e;
}

function keepFirst(list, n) { while (list.children.length > n) list.lastElementChild.remove(); }
function keepLast(list, n) { while (list.children.length > n) list.firstElementChild.remove(); }

/** Hours, minutes and seconds of an RFC 3339 time, or of now. */
function clock(time = Date.now()) { return new Date(time).toLocaleTimeString([], { hour12: false }); }
