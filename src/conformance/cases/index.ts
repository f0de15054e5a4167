// The registry of cases, in the order of the catalogue's families. A family's file exports `cases`; nothing else is looked at.

import type { ConformanceCase } from '../types.js';
import { cases as association } from './association.js';
import { cases as batches } from './batches.js';
import { cases as get } from './get.js';
import { cases as getAlive } from './get-alive.js';
import { cases as getMixed } from './get-mixed.js';
import { cases as port } from './port.js';
import { cases as portFaults } from './port-faults.js';

export const cases: readonly ConformanceCase[] = [
  ...port,
  ...portFaults,
  ...association,
  ...get,
  ...getMixed,
  ...getAlive,
  ...batches,
];
