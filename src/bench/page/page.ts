// The script of the benchmark's page: charts and tables out of the reports that the page carries. It runs in a browser, is put
// together with Chart.js by the build into one file, and asks the network for nothing.

import {
  BarController,
  BarElement,
  CategoryScale,
  Chart,
  type ChartDataset,
  Legend,
  LinearScale,
  type Plugin,
  Tooltip,
} from 'chart.js';
import { type BenchRatio, type BenchReport, type BenchResult, oneOf, type Params, type Spread } from '../types.js';

Chart.register(BarController, BarElement, CategoryScale, Legend, LinearScale, Tooltip);

interface Machine {
  readonly name: string;
  readonly report: BenchReport;
}

interface Group {
  readonly workload: string;
  readonly params: Params;
}

interface Row {
  readonly machine: Machine;
  readonly result: BenchResult;
}

/** What Node itself brings, of each workload the nearest: the baseline that a machine's figures are held against. */
const baselines = ['node:net', 'fs.read', 'fs.write', 'postMessage', 'MessageChannel', 'empty module'];
const cPrograms = ['C io_uring', 'C epoll'];
/** Beside one machine's figures there is room for them as well. */
const runtimes = ['bun', 'deno'];
const barHeight = 24;

const machines = JSON.parse(document.getElementById('data')?.textContent ?? '[]') as Machine[];
const comparing = machines.length > 1;
const dark = matchMedia('(prefers-color-scheme: dark)');
/** Each makes its chart, once its canvas is in the document and has a size, and answers with what paints it. */
const charts: (() => () => void)[] = [];

const ours = 'completion-port';
const nameOf = ({ subject, variant }: { subject: string; variant: string }): string =>
  subject === ours ? variant : variant === '' ? subject : `${subject} ${variant}`;
const keyOf = ({ workload, params }: Group): string => JSON.stringify([workload, params]);

function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  { text, className, ...attributes }: Record<string, string> = {},
  children: readonly (Node | string)[] = [],
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className !== undefined) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function format(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3;
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// ---- Charts

/** The spread of each bar: a line from the smallest to the largest, with a tick at either end. */
const whiskers: Plugin<'bar'> = {
  id: 'whiskers',
  afterDatasetsDraw(chart) {
    const { ctx, scales } = chart;
    const x = scales.x;
    if (x === undefined) return;
    ctx.save();
    ctx.strokeStyle = colour('text');
    ctx.lineWidth = 1;
    chart.data.datasets.forEach((dataset, index) => {
      const spreads = (dataset as SpreadDataset).spreads;
      chart.getDatasetMeta(index).data.forEach((bar, place) => {
        const spread = spreads[place];
        if (spread === undefined || spread === null) return;
        const [from, to] = [x.getPixelForValue(spread.min), x.getPixelForValue(spread.max)];
        const y = bar.y;
        ctx.beginPath();
        ctx.moveTo(from, y);
        ctx.lineTo(to, y);
        for (const end of [from, to]) {
          ctx.moveTo(end, y - 4);
          ctx.lineTo(end, y + 4);
        }
        ctx.stroke();
      });
    });
    ctx.restore();
  },
};

interface SpreadDataset extends ChartDataset<'bar', (number | null)[]> {
  spreads: (Spread | null)[];
}

interface Series {
  readonly label: string;
  readonly spreads: (Spread | null)[];
  /** Names of custom properties, one a bar. */
  readonly colours: readonly string[];
}

function barChart(title: string, labels: readonly string[], series: readonly Series[]): HTMLElement {
  const canvas = element('canvas', { role: 'img', 'aria-label': `${title}: the same figures stand in the table` });
  const box = element('div', { className: 'chart' }, [canvas]);
  const bars = labels.length * series.length;
  box.style.height = `${bars * (series.length > 1 ? barHeight * 0.7 : barHeight) + labels.length * 4 + 70 + (series.length > 1 ? 30 : 0)}px`;
  const datasets: SpreadDataset[] = series.map(({ label, spreads }) => ({
    label,
    data: spreads.map((spread) => spread?.median ?? null),
    spreads,
    categoryPercentage: 0.85,
    barPercentage: 0.85,
  }));
  const largest = Math.max(...series.flatMap(({ spreads }) => spreads.map((spread) => spread?.max ?? 0)));
  charts.push(() => {
    const chart = new Chart<'bar', (number | null)[], string>(canvas, {
      type: 'bar',
      data: { labels: [...labels], datasets },
      plugins: [whiskers],
      options: {
        indexAxis: 'y',
        animation: false,
        maintainAspectRatio: false,
        scales: {
          x: { beginAtZero: true, suggestedMax: largest * 1.02, title: { display: true, text: title } },
          y: { ticks: { autoSkip: false }, grid: { display: false } },
        },
        plugins: {
          legend: { display: series.length > 1 },
          tooltip: {
            callbacks: {
              label(item) {
                const spread = (item.dataset as SpreadDataset).spreads[item.dataIndex];
                return spread ? `${format(spread.median)} (${format(spread.min)} to ${format(spread.max)})` : '';
              },
            },
          },
        },
      },
    });
    const paint = (): void => {
      const [text, grid] = [colour('text'), colour('line')];
      datasets.forEach((dataset, index) => {
        dataset.backgroundColor = series[index]?.colours.map(colour);
      });
      for (const scale of Object.values(chart.options.scales ?? {})) {
        if (scale === undefined) continue;
        scale.ticks = { ...scale.ticks, color: text };
        scale.grid = { ...scale.grid, color: grid };
        scale.border = { ...scale.border, color: grid };
        if ('title' in scale) Object.assign(scale.title ?? {}, { color: colour('aside') });
      }
      if (chart.options.plugins?.legend?.labels !== undefined) chart.options.plugins.legend.labels.color = text;
      chart.update();
      canvas.dataset.bars = String(chart.data.datasets.reduce((sum, _, index) => sum + drawnBars(chart, index), 0));
    };
    return paint;
  });
  return box;
}

function drawnBars(chart: Chart<'bar', (number | null)[], string>, dataset: number): number {
  return chart.getDatasetMeta(dataset).data.filter((bar) => {
    const { width } = bar.getProps(['width'], true) as unknown as { width: number };
    return width > 0;
  }).length;
}

// ---- Tables

interface Cell {
  readonly text: string;
  /** What it is sorted by; null comes last. */
  readonly value: number | string | null;
  readonly hint?: string;
}

const number = (value: number | null | undefined, whole = false): Cell =>
  value === null || value === undefined
    ? { text: '', value: null }
    : { text: whole ? Math.round(value).toLocaleString('en') : format(value), value };

function ratioCell(ratios: readonly BenchRatio[], against: string): Cell {
  const ratio = ratios.find((entry) => entry.against === against);
  if (ratio === undefined) return { text: '', value: null };
  if (ratio.cpu === null) return { text: 'refused', value: null, hint: ratio.reason ?? '' };
  return {
    text: ratio.cpu.median.toFixed(2),
    value: ratio.cpu.median,
    hint: `${ratio.cpu.min.toFixed(2)} to ${ratio.cpu.max.toFixed(2)}${ratio.coarse ? ', coarse' : ''}`,
  };
}

function table(caption: string, heads: readonly string[], rows: readonly (readonly Cell[])[], textColumns: number): HTMLElement {
  const body = element('tbody');
  const fill = (sorted: readonly (readonly Cell[])[]): void => {
    body.replaceChildren(
      ...sorted.map((row) =>
        element(
          'tr',
          {},
          row.map((cell, column) =>
            element(column === 0 ? 'th' : 'td', {
              text: cell.text,
              ...(column === 0 ? { scope: 'row' } : {}),
              ...(cell.hint === undefined ? {} : { title: cell.hint }),
              ...(column < textColumns ? {} : { className: 'number' }),
            }),
          ),
        ),
      ),
    );
  };
  let shown = [...rows];
  const titles = heads.map((text, column) => {
    const button = element('button', { type: 'button', text });
    const head = element('th', { scope: 'col', 'aria-sort': 'none', ...(column < textColumns ? {} : { className: 'number' }) }, [
      button,
    ]);
    button.addEventListener('click', () => {
      const up = head.getAttribute('aria-sort') !== 'ascending';
      for (const other of titles) other.setAttribute('aria-sort', 'none');
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      shown = [...rows].sort((a, b) => compare(a[column]?.value ?? null, b[column]?.value ?? null, up ? 1 : -1));
      fill(shown);
    });
    return head;
  });
  fill(shown);
  const copy = element('button', { type: 'button', className: 'copy', text: 'Copy table' });
  copy.addEventListener('click', () => {
    const text = [heads, ...shown.map((row) => row.map((cell) => cell.text))].map((line) => line.join('\t')).join('\n');
    void copyText(text).then((done) => {
      copy.textContent = done ? 'Copied' : 'Not allowed here';
      setTimeout(() => {
        copy.textContent = 'Copy table';
      }, 1500);
    });
  });
  return element('div', { className: 'table' }, [
    element('div', { className: 'scroll' }, [
      element('table', {}, [element('caption', { text: caption }), element('thead', {}, [element('tr', {}, titles)]), body]),
    ]),
    copy,
  ]);
}

function compare(a: number | string | null, b: number | string | null, sign: 1 | -1): number {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  if (typeof a === 'number' && typeof b === 'number') return (a - b) * sign;
  return String(a).localeCompare(String(b)) * sign;
}

async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // A page out of a file may lack the clipboard's interface: the old way, through a selection.
    const area = element('textarea', { className: 'hidden' });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

// ---- A workload

const firstOf = (names: readonly string[], rows: readonly Row[]): string | null =>
  names.find((name) => rows.some(({ result }) => nameOf(result) === name)) ?? null;

function section(group: Group): HTMLElement {
  const key = keyOf(group);
  const rows: Row[] = machines.flatMap((machine) =>
    machine.report.results.filter((result) => keyOf(result) === key).map((result) => ({ machine, result })),
  );
  const unit = rows[0]?.result.unit ?? 'operation';
  const labels = [...new Set(rows.map(({ result }) => nameOf(result)))];
  const spreadsOf = (machine: Machine, of: (result: BenchResult) => Spread | null): (Spread | null)[] =>
    labels.map((label) => {
      const row = rows.find((each) => each.machine === machine && nameOf(each.result) === label);
      return row === undefined ? null : of(row.result);
    });
  const isOurs = (label: string): boolean => rows.some(({ result }) => nameOf(result) === label && result.subject === ours);
  const machineColours = (index: number): string[] => labels.map(() => `machine-${index % 6}`);
  const chartOf = (title: string, of: (result: BenchResult) => Spread | null): HTMLElement =>
    barChart(
      title,
      labels,
      machines.map((machine, index) => ({
        label: machine.name,
        spreads: spreadsOf(machine, of),
        colours: comparing ? machineColours(index) : labels.map((label) => (isOurs(label) ? 'ours' : 'theirs')),
      })),
    );
  const has = (of: (result: BenchResult) => unknown): boolean => rows.some(({ result }) => of(result) !== null);
  const latency = has(({ latencyUs }) => latencyUs);
  const memory = has(({ bytesPerConnection }) => bytesPerConnection);
  const parts: HTMLElement[] = [];
  if (memory) {
    const single = (value: number | null): Spread | null => (value === null ? null : { min: value, median: value, max: value });
    parts.push(
      chartOf(`memory of the process ${oneOf(unit)}, bytes (less is better)`, (result) => single(result.bytesPerConnection)),
    );
  }
  parts.push(chartOf(`CPU time ${oneOf(unit)}, µs (less is better)`, (result) => result.cpuUsPerOp));
  const baseline = firstOf(baselines, rows);
  const ratiosOf = (machine: Machine, variant: string): BenchRatio[] =>
    machine.report.ratios.filter((ratio) => keyOf(ratio) === key && ratio.variant === variant);
  if (comparing && baseline !== null) parts.push(...baselineChart(labels.filter(isOurs), baseline, ratiosOf));
  const rivals = [baseline, ...cPrograms, ...(comparing ? [] : runtimes)].filter(
    (name): name is string => name !== null && rows.some(({ result }) => nameOf(result) === name),
  );
  const heads = [
    'subject',
    ...(comparing ? ['machine'] : []),
    `CPU µs ${oneOf(unit)}`,
    'min',
    'max',
    ...rivals.map((name) => `against ${name}`),
    'a second',
    ...(latency ? ['p50 µs', 'p99 µs', 'p99.9 µs'] : []),
    ...(memory ? ['bytes a connection', "the kernel's"] : []),
  ];
  const cells = rows.map(({ machine, result }): Cell[] => {
    const name = result.subject === ours ? `${ours} ${result.variant}` : nameOf(result);
    const ratios = result.subject === ours ? ratiosOf(machine, result.variant) : [];
    const limited = result.clientLimited ? { hint: 'the client was the limit: its own rate and latency' } : {};
    return [
      { text: name, value: name },
      ...(comparing ? [{ text: machine.name, value: machine.name }] : []),
      number(result.cpuUsPerOp.median),
      number(result.cpuUsPerOp.min),
      number(result.cpuUsPerOp.max),
      ...rivals.map((rival) => ratioCell(ratios, rival)),
      {
        ...number(result.opsPerSecond.median, true),
        ...limited,
        ...(result.clientLimited ? { text: `${number(result.opsPerSecond.median, true).text}*` } : {}),
      },
      ...(latency ? [number(result.latencyUs?.p50), number(result.latencyUs?.p99), number(result.latencyUs?.p999)] : []),
      ...(memory ? [number(result.bytesPerConnection, true), number(result.kernelBytesPerConnection, true)] : []),
    ];
  });
  parts.push(table(`${group.workload}: all figures`, heads, cells, comparing ? 2 : 1));
  if (rows.some(({ result }) => result.clientLimited)) {
    parts.push(
      element('p', {
        className: 'note',
        text: '* The client was the limit: rate and latency are its own, CPU time is the subject’s.',
      }),
    );
  }
  const params = Object.entries(group.params).map(([name, value]) =>
    element('span', { className: 'param', text: `${name} ${typeof value === 'number' ? value.toLocaleString('en') : value}` }),
  );
  return element('section', {}, [
    element('h2', { text: group.workload }),
    element('p', { className: 'params' }, params),
    ...parts,
  ]);
}

/** Machines differ in speed, so each variant is held against its own machine's baseline. */
function baselineChart(
  variants: readonly string[],
  baseline: string,
  ratiosOf: (machine: Machine, variant: string) => BenchRatio[],
): HTMLElement[] {
  const spreads = machines.map((machine) =>
    variants.map((variant) => ratiosOf(machine, variant).find(({ against }) => against === baseline)?.cpu ?? null),
  );
  if (spreads.flat().every((spread) => spread === null)) return [];
  const series = machines.map((machine, index) => ({
    label: machine.name,
    spreads: spreads[index] ?? [],
    colours: variants.map(() => `machine-${index % 6}`),
  }));
  return [barChart(`ratio to ${baseline} on the same machine (less is better; refused ones are missing)`, variants, series)];
}

function machineCard({ name, report }: Machine): HTMLElement {
  const { os, cpu, runtime } = report;
  const facts: [string, string][] = [
    ['System', `${os.platform} ${os.release}, ${os.arch}`],
    ['CPU', `${cpu.count} × ${cpu.model}; load before ${cpu.loadBefore.toFixed(1)}`],
    ['Versions', `completion-port ${report.version}, ${runtime.name} ${runtime.version}`],
    [
      'Rounds',
      `${report.rounds}${report.quick ? ' short ones: coarse, shows that it runs' : ''}${report.short ? '; a choice of the parameter sets' : ''}${report.interrupted ? '; interrupted' : ''}`,
    ],
    ['Placement', report.pinned ? 'subject and client on a CPU each' : 'not pinned'],
    ['Client', report.client],
    ['Begun', report.started],
  ];
  const list = element(
    'dl',
    {},
    facts.flatMap(([term, text]) => [element('dt', { text: term }), element('dd', { text })]),
  );
  const absent =
    report.absent.length === 0
      ? []
      : [
          element('details', {}, [
            element('summary', { text: `${report.absent.length} absent` }),
            element(
              'ul',
              {},
              report.absent.map(({ subject, reason }) => element('li', { text: `${subject}: ${reason}` })),
            ),
          ]),
        ];
  return element('article', {}, [...(comparing ? [element('h2', { text: name })] : []), list, ...absent]);
}

const groups = new Map<string, Group>();
for (const { report } of machines) {
  for (const { workload, params } of report.results) {
    const group = { workload, params };
    if (!groups.has(keyOf(group))) groups.set(keyOf(group), group);
  }
}
document.getElementById('machines')?.append(...machines.map(machineCard));
const main = document.querySelector('main');
main?.append(...[...groups.values()].map(section));
if (groups.size === 0) main?.append(element('p', { text: 'These reports hold no results.' }));
const painters = charts.map((make) => make());
const paintAll = (): void => {
  for (const paint of painters) paint();
};
paintAll();
dark.addEventListener('change', paintAll);
document.documentElement.dataset.ready = 'true';
