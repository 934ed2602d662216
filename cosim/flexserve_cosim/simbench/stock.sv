// The phone for a stock cocotb simulation: what the co-simulation's main loop does between two cycles happens here.
//
// Python drives the clock through GPI, and `rst` and `active` through VPI whenever it has been entered; `wake` changes
// when there is something for it, as in the co-simulation.

module stock_phone #(
    parameter int MEM_ID_WIDTH = 6
) (
    input  wire       clk,
    input  wire       rst,
    input  wire [5:0] active,
    output reg        wake
);
    import "DPI-C" function bit flex_tick(input int interrupts);

    wire [7:0] interrupts;

    phone #(.MEM_ID_WIDTH(MEM_ID_WIDTH)) phone (
        .clk(clk), .rst(rst), .wake(wake), .active(active), .interrupts(interrupts)
    );

    always_ff @(negedge clk) if (flex_tick(int'(interrupts))) wake <= !wake;
endmodule
