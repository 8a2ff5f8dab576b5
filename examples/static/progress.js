// Shows tasks as they run: one EventSource each, and what it says drawn as a timeline.
// Whatever a model or the service says gets in by textContent only, so it can't be markup.

// A browser opens six connections to a site over HTTP/1.1, for all its tabs; a page must not take them all.
const MOST_STREAMS = 4;
const KEPT_TASKS = 12;
const LONGEST_PAUSE = 30_000; // milliseconds between tries to reach a server that is gone

const ended = new Set(["COMPLETED", "ERROR"]);
const seconds = (from, to) => `${(Math.max(0, to - from) / 1000).toFixed(1)} s`;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** Follow a task's events until `done`, over lost connections and restarted servers. */
function follow(taskId, on) {
  const path = `/tasks/${encodeURIComponent(taskId)}/events`;
  let last = "";
  let pause = 1000;

  function connect() {
    const source = new EventSource(last ? `${path}?last_event_id=${encodeURIComponent(last)}` : path);
    const tell = (event, told) => {
      last = event.lastEventId;
      told(JSON.parse(event.data));
    };
    source.addEventListener("open", () => { pause = 1000; on.connection(true); });
    source.addEventListener("status", (event) => tell(event, on.status));
    source.addEventListener("result", (event) => tell(event, on.result));
    source.addEventListener("done", (event) => { source.close(); tell(event, on.done); });
    source.addEventListener("error", (event) => {
      if (event.data) { tell(event, on.error); return; } // ours; without data it is the browser's own
      on.connection(false);
      // The browser tries again by itself where it found nobody; where somebody answered with an error, such as
      // a proxy while the server restarts, it gives up, and a new EventSource doesn't know how far the old one got.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(connect, pause);
        pause = Math.min(2 * pause, LONGEST_PAUSE);
      }
    });
  }

  connect();
}

/** Draws one task into `root`, which has .now, .timeline, .problem and .answer. */
class TaskView {
  constructor(root) {
    this.now = root.querySelector(".now");
    this.timeline = root.querySelector(".timeline");
    this.problem = root.querySelector(".problem");
    this.answer = root.querySelector(".answer");
    this.steps = []; // {status, at, row}
    this.isOver = false;
    this.say("Connecting …");
  }

  follow(taskId, whenDone = () => {}) {
    follow(taskId, {
      connection: (isUp) => this.connection(isUp),
      status: (told) => this.status(told),
      result: (told) => this.result(told.result),
      error: (told) => { this.problem.textContent = told.error.detail; },
      done: () => { this.isOver = true; this.summarize(); this.draw(); whenDone(); },
    });
    const tick = setInterval(() => { if (this.isOver) clearInterval(tick); else this.draw(); }, 250);
  }

  say(text) {
    if (this.now.textContent !== text) this.now.textContent = text; // screen readers read out each change
  }

  connection(isUp) {
    this.now.classList.toggle("lost", !isUp);
    if (isUp) this.problem.textContent = ""; // what was told before the connection ended may be over
    if (isUp) this.summarize();
    else this.say("Connection lost. Trying again …");
  }

  status({ status, at }) {
    const row = document.createElement("li");
    row.dataset.status = status;
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = status;
    const when = document.createElement("time");
    when.dateTime = at;
    when.textContent = clock.format(new Date(at));
    const track = document.createElement("span");
    track.className = "track";
    const bar = track.appendChild(document.createElement("span"));
    const length = document.createElement("span");
    length.className = "length";
    row.append(name, when, track, length);
    this.timeline.append(row);
    this.steps.push({ status, at: Date.parse(at), row, bar, length });
    this.summarize();
    this.draw();
  }

  result(result) {
    const message = result.choices?.[0]?.message;
    const calls = (message?.tool_calls ?? []).map((call) => `${call.function.name}(${call.function.arguments})`);
    this.answer.textContent = [message?.content, ...calls].filter(Boolean).join("\n");
  }

  summarize() {
    const last = this.steps.at(-1);
    if (!last) this.say(this.isOver ? "Ended." : "Connected. Waiting for the first status …");
    else if (ended.has(last.status) && this.steps.length === 1) this.say(`${last.status}.`);
    else if (ended.has(last.status)) this.say(`${last.status}, ${seconds(this.steps[0].at, last.at)} after ${this.steps[0].status}.`);
    else this.say(this.isOver ? `Not followed any more; last seen ${last.status}.` : `Now ${last.status}.`);
  }

  draw() {
    if (!this.steps.length) return;
    const first = this.steps[0].at;
    const last = this.steps.at(-1);
    const isRunning = !this.isOver && !ended.has(last.status);
    const end = isRunning ? Math.max(Date.now(), last.at) : last.at;
    const whole = Math.max(end - first, 1);
    this.steps.forEach((step, n) => {
      const until = this.steps[n + 1]?.at ?? end;
      const isCurrent = step === last && isRunning;
      step.row.classList.toggle("current", isCurrent);
      step.bar.style.left = `${(100 * (step.at - first)) / whole}%`;
      step.bar.style.width = `${(100 * (until - step.at)) / whole}%`;
      step.length.textContent = ended.has(step.status) ? `total ${seconds(first, step.at)}` : seconds(step.at, until);
    });
  }
}

/** What this browser remembers, and nobody else; nothing where it is told to remember nothing. */
const memory = {
  read(store, name, otherwise) {
    try {
      return JSON.parse(window[store].getItem(name)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  write(store, name, value) {
    try {
      window[store].setItem(name, JSON.stringify(value));
    } catch { /* then there is no list */ }
  },
  /** The tasks that it saw, the newest first. */
  tasks() {
    return this.read("localStorage", "tasks", []);
  },
};

function showTask(root) {
  const id = decodeURIComponent(location.pathname.split("/").at(-1));
  const others = memory.tasks().filter((task) => task.id !== id);
  const prompt = memory.tasks().find((task) => task.id === id)?.prompt ?? memory.read("sessionStorage", "prompt", "");
  memory.write("sessionStorage", "prompt", "");
  memory.write("localStorage", "tasks", [{ id, prompt }, ...others].slice(0, KEPT_TASKS));
  if (prompt) root.querySelector("h1").textContent = prompt;
  document.title = prompt ? `${prompt.slice(0, 40)} · Task` : "Task";
  root.querySelector(".id").textContent = id;
  new TaskView(root).follow(id);
}

function showList(form) {
  form.addEventListener("submit", () => memory.write("sessionStorage", "prompt", form.elements.prompt.value.trim()));
  const cards = document.getElementById("cards");
  const waiting = memory.tasks().map(({ id, prompt }) => {
    const card = document.getElementById("card").content.cloneNode(true).firstElementChild;
    const link = card.querySelector("a");
    link.href = `/tasks/${encodeURIComponent(id)}`;
    link.textContent = prompt || id;
    cards.append(card);
    const view = new TaskView(card);
    view.say("Waiting for a free connection …");
    return { id, view };
  });
  document.getElementById("list").hidden = waiting.length === 0;
  const next = () => {
    const task = waiting.shift();
    if (task) task.view.follow(task.id, next);
  };
  for (let n = 0; n < MOST_STREAMS; n += 1) next();
}

const task = document.getElementById("task");
const order = document.getElementById("order");
if (task) showTask(task);
if (order) showList(order);
