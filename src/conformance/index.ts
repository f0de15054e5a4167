// `completion-port/conformance`: the suite as data and its runner, for programs that check a port of their own.

export { cases } from './cases/index.js';
export { type Clause, type ClauseFamily, clauses, families } from './clauses.js';
export { gates } from './gates.js';
export {
  type Column,
  formatSummary,
  type Matrix,
  makeMatrix,
  markdownPage,
  nameOf,
  parseReport,
  ReportError,
  readReports,
  type Summary,
} from './matrix.js';
export { htmlPage } from './matrix-page.js';
export { isGood, probeBackends, RefusedError, type RunOptions, runSuite } from './runner.js';
export type {
  Api,
  CaseReport,
  ChildOptions,
  ChildResult,
  ConformanceCase,
  Context,
  ErrorShape,
  Gate,
  Need,
  PeerPair,
  Random,
  Restrictions,
  SuiteReport,
  TakeOptions,
  Verdict,
  Way,
} from './types.js';
