// The registry of cases, in the order of the catalogue's families. A family's file exports `cases`; nothing else is looked at.

import type { ConformanceCase } from '../types.js';

export const cases: readonly ConformanceCase[] = [];
