// Fills the console in: asks the coordinator's /api/ once a second and shows what it says. Changes
// nothing there, loads nothing from elsewhere, keeps nothing but the choice of colours.
// docs/operations.md, "Console", documents the answers.
'use strict';

const POLL_MS = 1000;      // between two questions
const PATIENCE_MS = 2500;  // for an answer
const WINDOWS_MS = [60000, 120000, 300000];  // what the charts show: the least that has it all
const TICKS = 4;           // marks on their axis of time
const GAP_MS = 3500;       // without samples for so long: the line is broken there
const SVG = 'http://www.w3.org/2000/svg';

const $ = (id) => document.getElementById(id);

// ------------------------------------------------------------------------ words and numbers

const clock = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit', minute: '2-digit', second: '2-digit',
});
const day = new Intl.DateTimeFormat('en-GB', {year: 'numeric', month: 'short', day: 'numeric'});

function timeOf(unixMs) {
  const then = new Date(unixMs);
  const today = new Date().toDateString() === then.toDateString();
  return today ? clock.format(then) : `${day.format(then)}, ${clock.format(then)}`;
}

// 0.4 s, 12 s, 3 min 20 s, 5 h 2 min, 3 d 4 h
function span(ms) {
  const s = Math.max(ms, 0) / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  const whole = Math.floor(s);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600) % 24} h`;
}

function number(value, digits = 0) {
  return value === null || value === undefined ? '–' :
    value.toLocaleString('en-GB', {minimumFractionDigits: digits, maximumFractionDigits: digits});
}

const fine = (value) => number(value, value !== null && value < 100 ? 1 : 0);

function count(n, one, many) {
  return `${number(n)} ${n === 1 ? one : many}`;
}

// ------------------------------------------------------------------------ the document

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setMood(node, mood) {
  if (mood) {
    if (node.dataset.mood !== mood) node.dataset.mood = mood;
  } else {
    delete node.dataset.mood;
  }
}

function element(name, text, attributes = {}) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// Brings the rows of a table in line with `items`. A row that stays keeps its nodes, so that focus
// and selection survive; `fill(cells, item)` sets what differs. The first cell is the row's header.
function fillTable(table, items, keyOf, columns, fill) {
  const body = table.tBodies[0];
  const former = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let before = body.rows[0] || null;
  for (const item of items) {
    const key = keyOf(item);
    let row = former.get(key);
    if (row) {
      former.delete(key);
    } else {
      row = element('tr', undefined, {'data-key': key});
      row.append(element('th', undefined, {scope: 'row'}));
      for (let i = 1; i < columns; ++i) row.append(element('td'));
    }
    if (row === before) {
      before = row.nextElementSibling;
    } else {
      body.insertBefore(row, before);
    }
    fill([...row.cells], item);
  }
  // What is left stands behind all that stays; also the second of a key that came twice.
  while (before) {
    const next = before.nextElementSibling;
    before.remove();
    before = next;
  }
  const shown = items.length > 0;
  if (table.hidden === shown) table.hidden = !shown;
}

// A link to a transaction, made once and then kept.
function setTransactionLink(cell, id) {
  let link = cell.firstElementChild;
  if (!link) {
    link = element('a', undefined, {class: 'id'});
    cell.append(link);
  }
  setText(link, id);
  const target = `#transaction=${id}`;
  if (link.getAttribute('href') !== target) link.setAttribute('href', target);
}

// Text, then a list below it; touched only when something differs.
function setTextAndList(cell, text, lines) {
  const signature = JSON.stringify([text, lines]);
  if (cell.dataset.signature === signature) return;
  cell.dataset.signature = signature;
  cell.replaceChildren(element('span', text));
  if (!lines.length) return;
  const list = element('ul');
  for (const line of lines) list.append(element('li', line));
  cell.append(list);
}

// Said to who listens: only what is new, and not what changes every second.
let lastNews = '';
function tell(news) {
  if (news === lastNews) return;
  lastNews = news;
  $('news').textContent = news;
}

// Tables wider than the page can be scrolled with the keyboard.
function markScrollable() {
  for (const box of document.querySelectorAll('.wide')) {
    const needed = box.scrollWidth > box.clientWidth;
    if (needed === box.hasAttribute('tabindex')) continue;
    if (needed) {
      box.setAttribute('tabindex', '0');
      box.setAttribute('role', 'group');
      box.setAttribute('aria-label', `${box.dataset.label}, scrollable`);
    } else {
      for (const name of ['tabindex', 'role', 'aria-label']) box.removeAttribute(name);
    }
  }
}

// ------------------------------------------------------------------------ charts

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value);
}

class Chart {
  constructor(svg, curves, least) {
    this.svg = svg;
    this.curves = curves;  // [{of: sample => number or null, name: class}]
    this.least = least;    // top of the axis at least
    this.grid = document.createElementNS(SVG, 'path');
    this.grid.setAttribute('class', 'grid');
    this.texts = document.createElementNS(SVG, 'g');
    this.paths = curves.map((curve) => {
      const path = document.createElementNS(SVG, 'path');
      path.setAttribute('class', `line ${curve.name}`);
      return path;
    });
    svg.append(this.grid, this.texts, ...this.paths);
  }

  draw(samples, now) {
    const width = Math.max(this.svg.clientWidth, 200);
    const height = this.svg.clientHeight || 190;
    const began = samples.length ? samples[0].at_unix_ms : now;
    const shown = WINDOWS_MS.find((ms) => now - began <= ms) || WINDOWS_MS[WINDOWS_MS.length - 1];
    const box = {left: 46, right: width - 8, top: 10, bottom: height - 22};
    let most = this.least;
    for (const sample of samples) {
      for (const curve of this.curves) most = Math.max(most, curve.of(sample) || 0);
    }
    const top = niceTop(most);
    const x = (at) => box.right - (now - at) / shown * (box.right - box.left);
    const y = (value) => box.bottom - value / top * (box.bottom - box.top);
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.drawAxes(box, top, y, shown);
    this.paths.forEach((path, i) => {
      let d = '';
      let last = -Infinity;
      for (const sample of samples) {
        const value = this.curves[i].of(sample);
        const at = sample.at_unix_ms;
        if (value === null || at < now - shown) continue;
        d += `${at - last > GAP_MS ? 'M' : 'L'}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        last = at;
      }
      path.setAttribute('d', d);
    });
  }

  drawAxes(box, top, y, shown) {
    const labels = [];
    let d = '';
    for (const part of [0, 0.5, 1]) {
      d += `M${box.left} ${y(top * part)}H${box.right}`;
      labels.push([box.left - 6, y(top * part) + 4, 'end', number(top * part, top < 2 ? 1 : 0)]);
    }
    for (let i = 0; i <= TICKS; ++i) {
      const seconds = shown / 1000 * (1 - i / TICKS);
      const text = seconds === 0 ? 'now' : `−${Math.floor(seconds / 60)}:` +
        String(seconds % 60).padStart(2, '0');
      const anchor = i === TICKS ? 'end' : i === 0 ? 'start' : 'middle';
      labels.push([box.left + i / TICKS * (box.right - box.left), box.bottom + 16, anchor, text]);
    }
    this.grid.setAttribute('d', d);
    while (this.texts.childNodes.length < labels.length) {
      this.texts.append(document.createElementNS(SVG, 'text'));
    }
    labels.forEach(([left, base, anchor, text], i) => {
      const node = this.texts.childNodes[i];
      node.setAttribute('x', left);
      node.setAttribute('y', base);
      node.setAttribute('text-anchor', anchor);
      setText(node, text);
    });
  }
}

// ------------------------------------------------------------------------ what is known

const known = {
  answered: 0,       // when the coordinator last answered
  awaySince: 0,      // when it did not any more; 0: it does
  page: '',          // version of the page that the coordinator serves
  status: null,
  samples: [],
  doubt: null,
  participants: null,
  wanted: '',        // the transaction that is looked at
  transaction: null,
};

async function ask(path) {
  const control = new AbortController();
  const timer = setTimeout(() => control.abort(), PATIENCE_MS);
  try {
    const reply = await fetch(path, {signal: control.signal, cache: 'no-store'});
    return {code: reply.status, body: await reply.json()};
  } finally {
    clearTimeout(timer);
  }
}

async function poll() {
  const last = known.samples.length ? known.samples[known.samples.length - 1].at_unix_ms : 0;
  const wanted = known.wanted;
  const questions = ['api/status', `api/load?after=${last}`, 'api/in-doubt', 'api/participants'];
  if (wanted) questions.push(`api/transaction?id=${encodeURIComponent(wanted)}`);
  let answers;
  try {
    answers = await Promise.all(questions.map(ask));
  } catch (error) {
    if (!known.awaySince) known.awaySince = known.answered || Date.now();
    show();
    return;
  }
  const [status, load, doubt, participants, transaction] = answers;
  known.awaySince = 0;
  known.answered = Date.now();
  known.status = status.body;
  if (load.code === 200) addSamples(load.body.samples);
  if (doubt.code === 200) known.doubt = doubt.body;
  if (participants.code === 200) known.participants = participants.body;
  if (transaction && wanted === known.wanted) known.transaction = transaction;
  show();
}

function addSamples(samples) {
  if (!samples.length) return;
  // Of a clock that was set back, or another machine: what was known is of another time.
  const from = samples[0].at_unix_ms;
  known.samples = known.samples.filter((sample) => sample.at_unix_ms < from).concat(samples);
  const since = samples[samples.length - 1].at_unix_ms -
    WINDOWS_MS[WINDOWS_MS.length - 1];
  known.samples = known.samples.filter((sample) => sample.at_unix_ms >= since);
}

// ------------------------------------------------------------------------ showing it

const rateChart = new Chart($('rate-chart'), [
  {of: (s) => s.committed_per_s, name: 'one'},
  {of: (s) => s.aborted_per_s, name: 'two'},
  {of: (s) => s.read_only_per_s, name: 'three'},
], 10);
const latencyChart = new Chart($('latency-chart'), [
  {of: (s) => s.commit_p50_ms, name: 'one'},
  {of: (s) => s.commit_p99_ms, name: 'two'},
  {of: (s) => s.log_sync_p99_ms, name: 'three'},
], 1);

function show() {
  showState();
  if (known.status) showNow();
  if (known.doubt) showDoubt();
  if (known.participants) showParticipants();
  if (known.status && known.status.heuristics) showSettled();
  showLoad();
  showTransaction();
  showNews();
  markScrollable();
}

const MOODS = {'serving': 'good', 'log-full': 'bad', 'log-suspect': 'bad'};

function showState() {
  const {status, awaySince} = known;
  const banner = $('banner');
  let warning = '';
  let mood = 'bad';
  if (awaySince) {
    setText($('state'), 'not reachable');
    setMood($('state'), 'bad');
    warning = `The coordinator is not reachable since ${timeOf(awaySince)} ` +
      `(${span(Date.now() - awaySince)}). What stands below is what was known then; ` +
      'it is asked again every second.';
  } else if (status) {
    setText($('state'), status.state);
    setMood($('state'), MOODS[status.state] || 'watch');
    if (status.state !== 'serving') {
      warning = `The coordinator says ${status.state}: ${status.why}`;
      mood = MOODS[status.state] || 'watch';
    } else if (known.page && known.page !== status.page) {
      warning = 'The coordinator was replaced by another version: load this page anew.';
      mood = 'watch';
    }
    known.page = known.page || status.page;
  }
  setText(banner, warning);
  setMood(banner, mood);
  banner.hidden = !warning;
  if (status && status.coordinator) {
    setText($('name'), status.coordinator);
    document.title = `${awaySince ? '✕' : MOODS[status.state] === 'good' ? '✓' : '▲'} ` +
      `${status.coordinator} · Troth`;
    setText($('life'), `epoch ${status.epoch.split('-')[0]}, up since ` +
      `${timeOf(status.began_unix_ms)}; answered at ${timeOf(known.answered)}`);
  }
}

function showNow() {
  const {status} = known;
  const last = known.samples[known.samples.length - 1];
  setText($('now-rate'), last ? fine(last.committed_per_s) : '–');
  setText($('now-p50'), last ? fine(last.commit_p50_ms) : '–');
  setText($('now-p99'), last ? fine(last.commit_p99_ms) : '–');
  if (status.in_flight === undefined) return;
  setText($('now-flight'), number(status.in_flight));
  setText($('now-owed'), number(status.unacknowledged));
  setText($('now-oldest'), status.oldest_ms === null ? 'none' : span(status.oldest_ms));
  setMood($('now-oldest'), status.oldest_ms > 5000 ? 'watch' : '');
  setText($('now-heuristics'), number(status.heuristics_count));
  setMood($('now-heuristics'), status.heuristics_count ? 'watch' : '');
}

const STATES = {
  preparing: 'preparing: votes are missing',
  deciding: 'deciding: the log is being written',
  committed: 'committed, and not applied everywhere',
  pending: 'prepared, and its commit was not asked',
  aborted: 'aborted, and not rolled back everywhere',
  expired: 'prepared, and its outcome is kept no more',
  'not-mine': 'prepared, and of another coordinator',
};

function names(list) {
  return list.length < 2 ? list.join('') :
    `${list.slice(0, -1).join(', ')} and ${list[list.length - 1]}`;
}

// Why a transaction waits; the coordinator's own sentence where it has looked closer.
function whyOf(transaction) {
  if (transaction.why) return transaction.why;
  const {participants} = known.participants || {participants: []};
  const parts = transaction.waiting_for.map((name) => {
    const one = participants.find((p) => p.participant === name);
    return one && !one.up ? `${name}, which is not reachable since ${timeOf(one.since_unix_ms)}` :
      name;
  });
  return parts.length ? `waits for ${names(parts)}` : '';
}

function sessionText(session, place) {
  const user = session.application ? `${session.user}, ${session.application}` : session.user;
  return `at ${place}, for ${span(session.waiting_ms)}: pid ${session.pid} (${user}) ` +
    `${session.statement}`;
}

// What is known of who waits behind the branches of a transaction.
function blockedBy(transaction) {
  const waiting = [];
  const unseen = [];
  for (const branch of transaction.branches || []) {
    for (const session of (branch.prepared && branch.prepared.waiting) || []) {
      waiting.push({session, place: branch.participant});
    }
    if (branch.unseen) unseen.push(`${branch.participant} can't be asked: ${branch.unseen}`);
  }
  waiting.sort((a, b) => b.session.waiting_ms - a.session.waiting_ms);
  return {waiting, unseen};
}

function showDoubt() {
  const {doubt} = known;
  const list = doubt.transactions;
  const young = Math.max(doubt.under_way - list.length, 0);
  setText($('doubt-summary'), list.length ?
    `${count(list.length, 'transaction is', 'transactions are')} not finished.` :
    `Nothing waits. ${count(young, 'transaction is', 'transactions are')} under way.`);
  fillTable($('doubt-table'), list, (t) => t.transaction_id, 5, (cells, t) => {
    setTransactionLink(cells[0], t.transaction_id);
    setText(cells[1], STATES[t.state] || t.state);
    setText(cells[2], t.age_ms < 0 ? 'not known' :
      `${timeOf(doubt.now_unix_ms - t.age_ms)}, for ${span(t.age_ms)}`);
    cells[3].className = 'why';
    setText(cells[3], whyOf(t));
    const {waiting, unseen} = blockedBy(t);
    const lines = waiting.slice(0, 3).map((w) => sessionText(w.session, w.place));
    if (waiting.length > 3) lines.push(`and ${waiting.length - 3} more`);
    const what = !t.branches ? 'being asked …' :
      waiting.length ? `${count(waiting.length, 'session waits', 'sessions wait')}` :
      unseen.length ? 'not known' : 'nobody waits';
    setTextAndList(cells[4], what, lines.concat(unseen));
  });
}

function showParticipants() {
  const {participants, now_unix_ms: now} = known.participants;
  fillTable($('participants-table'), participants, (p) => p.participant, 7, (cells, p) => {
    setText(cells[0], p.participant);
    setText(cells[1], p.up ? '✓ yes' : '✕ no');
    cells[1].className = p.up ? 'mood-good' : 'mood-bad';
    setText(cells[2], `${timeOf(p.since_unix_ms)}, for ${span(now - p.since_unix_ms)}`);
    setText(cells[3], p.contradiction ? `contradicts the log: ${p.contradiction}` :
      p.heard_unix_ms === null ? 'not in this epoch' : `${span(now - p.heard_unix_ms)} ago`);
    cells[4].className = p.unacknowledged && !p.up ? 'number mood-watch' : 'number';
    setText(cells[4], `${p.unacknowledged && !p.up ? '▲ ' : ''}${number(p.unacknowledged)}`);
    setText(cells[5], p.address);
    setText(cells[6], `${p.database_address}, oid ${p.database_oid}`);
  });
}

function showSettled() {
  const list = known.status.heuristics;
  const older = known.status.heuristics_count - list.length;
  setText($('settled-summary'), !list.length ? 'None: every branch ended as it was decided.' :
    older > 0 ? `The newest; there are ${number(older)} more (trothctl heuristics).` : '');
  fillTable($('settled-table'), list, (h) => `${h.transaction_id} ${h.participant} ${h.at_unix_ms}`,
    5, (cells, h) => {
      setTransactionLink(cells[0], h.transaction_id);
      setText(cells[1], h.participant);
      setText(cells[2], h.hazard ? 'hazard: nobody can tell' : 'heuristic: ordered, or settled otherwise');
      setText(cells[3], h.what);
      setText(cells[4], timeOf(h.at_unix_ms));
    });
}

function showLoad() {
  const {samples} = known;
  const last = samples[samples.length - 1];
  const now = known.awaySince ? Date.now() : (known.status ? known.status.now_unix_ms : Date.now());
  rateChart.draw(samples, now);
  latencyChart.draw(samples, now);
  if (!last) return;
  setText($('rate-caption'), `Per second: ${fine(last.committed_per_s)} committed, ` +
    `${fine(last.aborted_per_s)} aborted, ${fine(last.read_only_per_s)} read-only`);
  setText($('latency-caption'), `Milliseconds: ${fine(last.commit_p50_ms)} half of commits, ` +
    `${fine(last.commit_p99_ms)} 99 %; ${fine(last.log_sync_p99_ms)} log sync`);
  fillTable($('load-table'), samples.slice(-10), (s) => String(s.at_unix_ms), 8, (cells, s) => {
    setText(cells[0], timeOf(s.at_unix_ms));
    [s.committed_per_s, s.aborted_per_s, s.read_only_per_s, s.commit_p50_ms, s.commit_p99_ms,
      s.log_syncs_per_s, s.log_sync_p99_ms].forEach((value, i) => {
      cells[i + 1].className = 'number';
      setText(cells[i + 1], fine(value));
    });
  });
}

function showNews() {
  if (known.awaySince) {
    tell(`The coordinator is not reachable since ${timeOf(known.awaySince)}.`);
    return;
  }
  if (!known.status || !known.doubt || !known.participants) return;
  const parts = [];
  if (known.status.state !== 'serving') parts.push(`The coordinator is ${known.status.state}.`);
  const lost = known.participants.participants.filter((p) => !p.up).map((p) => p.participant);
  if (lost.length) parts.push(`Not reachable: ${names(lost)}.`);
  const stuck = known.doubt.transactions.length;
  if (stuck) parts.push(`${count(stuck, 'transaction is', 'transactions are')} in doubt.`);
  tell(parts.join(' ') || 'All is well.');
}

// ------------------------------------------------------------------------ one transaction

function showTransaction() {
  const {wanted, transaction} = known;
  const report = wanted && transaction && transaction.code === 200 ? transaction.body.report : null;
  $('transaction-details').hidden = !report;
  if (!wanted) {
    setText($('transaction-summary'), 'Choose one above, or write its id.');
    return;
  }
  if (!report) {
    setText($('transaction-summary'), !transaction || transaction.code === 200 ?
      `Asking about ${wanted} …` : transaction.body.error);
    return;
  }
  const asked = transaction.body.asked_unix_ms;
  const age = report.age_ms < 0 ? '' :
    ` since ${timeOf(asked - report.age_ms)}, for ${span(report.age_ms)}`;
  setText($('transaction-summary'),
    `${report.transaction_id}: ${report.state}${age}; ${report.why}.`);
  showBranches(report);
  showWaiting(report);
  showTimeline(report, asked);
}

function showBranches(report) {
  fillTable($('branch-table'), report.branches, (b) => b.participant, 4, (cells, b) => {
    setText(cells[0], b.participant);
    setText(cells[1], b.up ? b.state : `${b.state}; ✕ not reachable for ${span(b.down_ms)}`);
    cells[1].className = b.up ? '' : 'mood-bad';
    setText(cells[2], b.prepared ? `prepared for ${span(b.prepared.prepared_ms)}, locks in ` +
      `${b.prepared.relations.join(', ') || 'no table'}, xid ${b.prepared.xid}, ` +
      `${count(b.prepared.xmin_age, 'transaction', 'transactions')} old` +
      `${b.prepared.holds_vacuum ? ': holds vacuum back' : ''}` :
      b.unseen ? `can't be asked: ${b.unseen}` : 'nothing prepared');
    if (!cells[3].firstElementChild) cells[3].append(element('span', undefined, {class: 'id'}));
    setText(cells[3].firstElementChild, b.gid);
  });
}

function showWaiting(report) {
  const {waiting, unseen} = blockedBy(report);
  const text = waiting.length ?
    `${count(waiting.length, 'session waits', 'sessions wait')} behind it.` :
    unseen.length ? 'Nobody, as far as can be seen.' : 'Nobody.';
  setText($('waiting-summary'), [text, ...unseen].join(' '));
  fillTable($('waiting-table'), waiting, (w) => `${w.place} ${w.session.pid}`, 6, (cells, w) => {
    const s = w.session;
    setText(cells[0], `pid ${s.pid}, ${s.user}${s.application ? `, ${s.application}` : ''}`);
    setText(cells[1], w.place);
    cells[2].className = 'number';
    setText(cells[2], span(s.waiting_ms));
    setText(cells[3], s.lock);
    setText(cells[4], s.behind.length ? `pid ${s.behind.join(', ')}` : 'the branch itself');
    setText(cells[5], s.statement);
  });
}

// A column for each place; a row for each thing that happened, and for each pause above 1 s.
function showTimeline(report, asked) {
  const table = $('timeline-table');
  const events = report.timeline;
  setText($('timeline-summary'), events.length ? '' :
    'Not known any more: only the last transactions of this epoch have one.');
  const places = ['', ...report.branches.map((b) => b.participant)];
  const heads = ['After', 'Coordinator', ...places.slice(1)];
  if (table.dataset.heads !== heads.join()) {
    table.dataset.heads = heads.join();
    const row = element('tr');
    for (const head of heads) row.append(element('th', head, {scope: 'col'}));
    table.tHead.replaceChildren(row);
    table.tBodies[0].replaceChildren();
  }
  const rows = [];
  const first = events.length ? events[0].ago_us : 0;
  events.forEach((event, i) => {
    const pause = i ? events[i - 1].ago_us - event.ago_us : 0;
    if (pause > 1e6) rows.push({key: `pause ${i}`, pause: `${span(pause / 1000)} nothing`});
    rows.push({key: `event ${i}`, after: (first - event.ago_us) / 1000,
      column: places.indexOf(event.participant) + 1, what: event.what});
  });
  const left = events.length ? events[events.length - 1].ago_us / 1000 : 0;
  if (report.in_doubt && left > 1000) {
    rows.push({key: 'left', pause: `${span(left)} nothing, until now (${timeOf(asked)})`});
  }
  fillTable(table, rows, (row) => row.key, heads.length, (cells, row) => {
    cells[0].parentNode.className = row.pause ? 'pause' : '';
    setText(cells[0], row.pause ? '⋮' : `${row.after.toFixed(row.after < 100 ? 2 : 0)} ms`);
    cells.slice(1).forEach((cell, i) => {
      const text = row.pause ? (i === 0 ? row.pause : '') : (i + 1 === row.column ? row.what : '');
      if (cell.dataset.text === text) return;
      cell.dataset.text = text;
      cell.replaceChildren();
      if (!text) return;
      if (!row.pause) cell.append(element('span', '●', {'class': 'dot', 'aria-hidden': 'true'}));
      cell.append(text);
    });
  });
}

function choose(id, move) {
  if (id !== known.wanted) {
    known.wanted = id;
    known.transaction = null;
    $('find-id').value = id;
  }
  showTransaction();
  if (!id) return;
  if (move) $('transaction').focus();
  pollSoon();
}

// The address says which transaction is looked at: it can be kept, sent, and gone back from.
function readAddress(move) {
  const match = location.hash.match(/^#transaction=(.+)$/);
  if (!match) return;
  let id = match[1];
  try {
    id = decodeURIComponent(id);
  } catch (error) {
    // As it was written, then: the coordinator says that it is no id.
  }
  choose(id, move);
}

// ------------------------------------------------------------------------ going on

let timer = 0;
let polling = false;
let paused = false;

async function turn() {
  timer = 0;
  if (polling) return;
  polling = true;
  const began = performance.now();
  try {
    await poll();
  } finally {  // also after a fault of this page: it is logged, and the next answer may be shown
    polling = false;
    if (!paused && !document.hidden) schedule(POLL_MS - (performance.now() - began));
  }
}

function schedule(ms) {
  clearTimeout(timer);
  // What an answer is awaited for is asked again at once.
  const waits = known.wanted && known.transaction && known.transaction.code === 200 &&
    !known.transaction.body.report;
  timer = setTimeout(turn, Math.max(waits ? Math.min(ms, 200) : ms, 50));
}

function pollSoon() {
  if (!polling) schedule(0);
}

function setPaused(now) {
  paused = now;
  $('pause').setAttribute('aria-pressed', String(paused));
  if (paused) {
    clearTimeout(timer);
  } else {
    pollSoon();
  }
}

function setTheme(theme) {
  if (theme === 'auto') {
    delete document.documentElement.dataset.theme;
  } else {
    document.documentElement.dataset.theme = theme;
  }
  $('theme').value = theme;
}

function remembered(key, value) {
  try {
    if (value !== undefined) localStorage.setItem(key, value);
    return localStorage.getItem(key);
  } catch (error) {
    return null;  // forbidden here: then it is not remembered
  }
}

$('pause').addEventListener('click', () => setPaused(!paused));
$('theme').addEventListener('change', () => setTheme(remembered('theme', $('theme').value) || $('theme').value));
$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const id = $('find-id').value.trim();
  if (id) location.hash = `#transaction=${encodeURIComponent(id)}`;
  if (id === known.wanted) choose(id, true);
});
window.addEventListener('hashchange', () => readAddress(true));
window.addEventListener('resize', () => show());
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !paused) pollSoon();
});
const theme = remembered('theme');
setTheme(['light', 'dark'].includes(theme) ? theme : 'auto');
readAddress(false);
turn();
